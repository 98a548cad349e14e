"""Files: read and write whole files on a local disk and in S3."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from segray.errors import InputError
from segray.storage.failures import FetchError
from segray.storage.listing import list_keys
from segray.storage.objects import CONNECT_SECONDS, fetch, open_at_once, retry
from segray.storage.s3 import s3_client, split_uri
from segray.storage.uri import explain_errors, file_system, is_local

#: The prefix of a local file's name while it is being written.
PARTIAL = ".partial-"

# The time limit for a store's answer after it has received a whole file.
_ANSWER_SECONDS = 20.0


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """Read a file or object with one request; transient failures are retried.

    Args:
        uri: the URI of the file or object.
        limit: the maximum number of bytes. Larger files are refused without reading more than that.
            Objects always have a limit (`segray.storage.objects`).

    Raises:
        InputError: the file does not exist, cannot be read or is too large.
    """
    if is_local(uri):
        with explain_errors(uri), open(uri, "rb", opener=open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"cannot read {uri}: is no regular file")
            content = file.read() if limit is None else file.read(limit + 1)
        if limit is not None and len(content) > limit:
            raise InputError(f"cannot read {uri}: is larger than the limit of {limit} bytes")
        return content
    try:
        return fetch(uri, limit=limit)
    except FetchError as error:
        raise InputError(f"cannot read {uri}: {error}") from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file or object atomically: readers see all of it or nothing.

    In S3 this is one request of up to 5 GB. Transient failures are retried within the limits of
    `segray.storage.objects`.

    Raises:
        InputError: the file cannot be written.
    """
    with explain_errors(uri, "write"):
        if not is_local(uri):
            bucket, key = split_uri(uri)

            def put() -> None:
                client = s3_client(CONNECT_SECONDS, _ANSWER_SECONDS)
                client.put_object(Bucket=bucket, Key=key, Body=content)

            retry(uri, put)
            return
        with new_file(Path(uri)) as file:
            file.write(content)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a local file that gets its name when the block ends, unless by an exception.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened like any new file, so that it gets ordinary permissions. Setting them would require the
    # umask, which can only be read by changing it, for all threads of the process.
    temporary = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_partial(folder: str, deep: bool = False) -> None:
    """Delete the temporary files of killed processes in a local folder.

    Args:
        folder: the URI of the folder. In S3 there are no temporary files.
        deep: True to include the folders below it.
    """
    if is_local(folder):
        path = Path(folder)
        for half in (path.rglob if deep else path.glob)(f"{PARTIAL}*"):
            half.unlink(missing_ok=True)


def remove(uri: str) -> None:
    """Delete a file or object, if it exists.

    Raises:
        InputError: the file cannot be deleted.
    """
    with explain_errors(uri, "delete"), contextlib.suppress(FileNotFoundError):
        file_system(uri).rm_file(uri)


def child_names(uri: str) -> list[str]:
    """Return the sorted names directly below a folder or prefix, without hidden ones.

    The list is empty if there is no such folder.

    Raises:
        InputError: the store cannot be asked.
    """
    with explain_errors(uri):
        if is_local(uri):
            folder = Path(uri)
            names = [path.name for path in folder.iterdir()] if folder.exists() else []
        else:
            bucket, key = split_uri(uri)
            prefix = f"{key.rstrip('/')}/" if key else ""
            pages = list(list_keys(bucket, prefix, delimiter="/"))
            keys = [
                key for page in pages for key in (*(k for k, *_ in page.objects), *page.prefixes)
            ]
            # An object that stands for the folder itself has an empty name.
            names = [key[len(prefix) :].rstrip("/") for key in keys]
    return sorted(name for name in names if name and not name.startswith("."))

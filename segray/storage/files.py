"""Files: whole ones, read and written, on a local disk and in S3."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from segray.errors import InputError
from segray.storage.failures import FetchError
from segray.storage.listing import list_keys
from segray.storage.objects import CONNECT_SECONDS, fetch, persist
from segray.storage.s3 import s3_client, split_uri
from segray.storage.uri import explain_errors, file_system, is_local

#: What is written on a disk has a name that begins so until it is whole.
PARTIAL = ".partial-"

# How long a store may take to answer when it has a whole file.
_ANSWER_SECONDS = 20.0


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """The content of a file or object, with one request, or more where its failure may pass.

    Args:
        uri: of the file or object.
        limit: bytes; of a larger one no more than that is read, and it is refused. Objects have a
            limit in any case (`segray.storage.objects`).

    Raises:
        InputError: it is not there, cannot be read or is too large.
    """
    if is_local(uri):
        with explain_errors(uri), Path(uri).open("rb") as file:
            content = file.read() if limit is None else file.read(limit + 1)
        if limit is not None and len(content) > limit:
            raise InputError(f"cannot read {uri}: is larger than the limit of {limit} bytes")
        return content
    try:
        return fetch(uri, limit=limit)
    except FetchError as error:
        raise InputError(f"cannot read {uri}: {error}") from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write a whole file or object; a reader sees all of it or nothing.

    In S3 that is one request of up to 5 GB; it is made again as long as its failure may pass, up to
    the limits of `segray.storage.objects`.

    Raises:
        InputError: it cannot be written.
    """
    with explain_errors(uri, "write"):
        if not is_local(uri):
            bucket, key = split_uri(uri)

            def put() -> None:
                client = s3_client(CONNECT_SECONDS, _ANSWER_SECONDS)
                client.put_object(Bucket=bucket, Key=key, Body=content)

            persist(uri, put)
            return
        with new_file(Path(uri)) as file:
            file.write(content)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a local file that has its name once the block has ended, and not by an exception.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened as any new file is, so that it gets the permissions of one: a process can ask for its
    # umask only by changing it, which concerns all of its threads.
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
    """Delete what processes that were killed as they wrote have left in a local folder.

    Args:
        folder: its URI; in S3 nothing is ever left.
        deep: in the folders below it too.
    """
    if is_local(folder):
        path = Path(folder)
        for half in (path.rglob if deep else path.glob)(f"{PARTIAL}*"):
            half.unlink(missing_ok=True)


def remove(uri: str) -> None:
    """Delete a file or object; one that is not there is no error.

    Raises:
        InputError: it cannot be deleted.
    """
    with explain_errors(uri, "delete"), contextlib.suppress(FileNotFoundError):
        file_system(uri).rm_file(uri)


def child_names(uri: str) -> list[str]:
    """The names right below a folder or prefix, sorted, hidden ones left out.

    There are none where there is no such folder.

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
            # One is empty where an object stands for the folder itself.
            names = [key[len(prefix) :].rstrip("/") for key in keys]
    return sorted(name for name in names if name and not name.startswith("."))

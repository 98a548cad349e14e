"""Ranges: a file or object of which only the parts that are needed are read."""

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from botocore.exceptions import ClientError

from segray.errors import InputError
from segray.storage.failures import FetchError, PassingError
from segray.storage.objects import read_body, retry_read
from segray.storage.s3 import split_uri
from segray.storage.uri import is_local

#: The first request reads so many bytes from the end and the size: the footer of a Parquet file, or
#: all of a small file.
TAIL_BYTES = 1 << 16
#: The kind of failure if an object is replaced while it is read.
CHANGED = "Changed"

# The size of a request when a file is read from beginning to end.
_STREAM_BYTES = 1 << 22

_Answer = TypeVar("_Answer")


def open_ranges(uri: str) -> BinaryIO:
    """Open a file or object for reading selected parts.

    Raises:
        OSError: a local file cannot be read.
        InputError: an object cannot be read. The methods of the result raise it, too.
    """
    return Path(uri).open("rb") if is_local(uri) else cast(BinaryIO, ObjectFile(uri))


def open_stream(uri: str) -> BinaryIO:
    """Open a file or object for reading from beginning to end.

    Raises:
        OSError: a local file cannot be read.
        InputError: an object cannot be read. The methods of the result raise it, too.
    """
    if is_local(uri):
        return Path(uri).open("rb", buffering=_STREAM_BYTES)
    return io.BufferedReader(ObjectFile(uri), _STREAM_BYTES)


class ObjectFile(io.RawIOBase):
    """An object in S3 as a file; requests for its parts are retried after transient failures.

    Args:
        uri: the URI of the object.

    Raises:
        InputError: the object cannot be read; raised here and by each method that reads.
    """

    def __init__(self, uri: str) -> None:
        self._uri, self._place = uri, split_uri(uri)
        self._at = 0
        self._tail, self._size, self._etag = self._ask(_send_tail)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start, stop = self._at, min(self._at + len(view), self._size)
        if start >= stop:
            return 0
        kept = start - (self._size - len(self._tail))
        if kept >= 0:
            content = self._tail[kept:]
        else:
            content = self._ask(partial(_send_part, start, stop, self._size, self._etag))
        view[: stop - start] = content[: stop - start]
        self._at = stop
        return stop - start

    def readall(self) -> bytes:
        pieces = iter(lambda: self.read(_STREAM_BYTES) or b"", b"")
        return b"".join(pieces)

    def _ask(self, send: Callable[[str, str, Any], _Answer]) -> _Answer:
        bucket, key = self._place
        try:
            return retry_read(self._uri, partial(send, bucket, key))
        except FetchError as error:
            raise InputError(f"cannot read {self._uri}: {error}") from error


def _send_tail(bucket: str, key: str, client: Any) -> tuple[bytes, int, str]:
    """Make one attempt to get the last bytes of an object, its size and its ETag."""
    try:
        answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes=-{TAIL_BYTES}")
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidRange":
            return b"", 0, ""  # S3's answer for an empty object; other stores send it
        raise
    with answer["Body"] as stream:
        if not answer["ContentLength"] and "ContentRange" not in answer:
            return b"", 0, ""
        first, last, size = _given(answer)
        if (first, last + 1) != (max(0, size - TAIL_BYTES), size):
            raise _not_the_part()
        return _read(stream, answer, last + 1 - first), size, answer.get("ETag", "")


def _send_part(
    start: int, stop: int, size: int, etag: str, bucket: str, key: str, client: Any
) -> bytes:
    """Make one attempt to get some bytes of an object, if its size and ETag are unchanged."""
    answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}")
    with answer["Body"] as stream:
        first, last, now = _given(answer)
        if (now, answer.get("ETag", "")) != (size, etag):
            raise PassingError(CHANGED, "has changed while it was read: run again")
        if (first, last + 1) != (start, stop):
            raise _not_the_part()
        return _read(stream, answer, stop - start)


def _given(answer: dict[str, Any]) -> tuple[int, int, int]:
    """Return the first and the last byte of an answer, and the size of the object."""
    given = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.get("ContentRange", ""))
    if not given:
        raise FetchError("Unsupported", "the store does not send a part of an object")
    first, last, size = map(int, given.groups())
    return first, last, size


def _read(stream: Any, answer: dict[str, Any], length: int) -> bytes:
    if answer["ContentLength"] != length:
        raise _not_the_part()
    return read_body(stream, answer["ResponseMetadata"]["HTTPHeaders"])


def _not_the_part() -> PassingError:
    return PassingError("Truncated", "the store's answer is not the part that was asked for")

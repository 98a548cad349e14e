"""Ranges: a file or object that is read in parts, those that are needed."""

import io
import re
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from botocore.exceptions import ClientError

from segray.errors import InputError
from segray.storage.failures import FetchError, PassingError
from segray.storage.objects import insist, read_body
from segray.storage.s3 import split_uri
from segray.storage.uri import is_local

# What comes with the size: the footer of a Parquet file, and all of a small one.
_TAIL_BYTES = 1 << 16
# What a program that reads from the beginning to the end asks for at once.
_STREAM_BYTES = 1 << 22


def open_ranges(uri: str) -> BinaryIO:
    """Open a file or object for whoever knows which parts of it to read.

    Raises:
        OSError: a local file cannot be read.
        InputError: an object cannot be read; so does each method of what is returned.
    """
    return Path(uri).open("rb") if is_local(uri) else cast(BinaryIO, ObjectFile(uri))


def open_stream(uri: str) -> BinaryIO:
    """Open a file or object for whoever reads it from its beginning to its end.

    Raises:
        OSError: a local file cannot be read.
        InputError: an object cannot be read; so does each method of what is returned.
    """
    if is_local(uri):
        return Path(uri).open("rb")
    return io.BufferedReader(ObjectFile(uri), _STREAM_BYTES)


class ObjectFile(io.RawIOBase):
    """An object of S3 as a file; each part is asked for again while its failure may pass.

    Args:
        uri: of the object.

    Raises:
        InputError: it cannot be read, here and in each method that reads.
    """

    def __init__(self, uri: str) -> None:
        self._uri, self._place = uri, split_uri(uri)
        self._at = 0
        self._tail, self._size = self._ask(None)

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
        content = self._tail[kept:] if kept >= 0 else self._ask((start, stop))[0]
        view[: stop - start] = content[: stop - start]
        self._at = stop
        return stop - start

    def _ask(self, part: tuple[int, int] | None) -> tuple[bytes, int]:
        """A part of the object, or its tail, and the size of all of it, in bytes."""
        try:
            return insist(self._uri, partial(_send, *self._place, part))
        except FetchError as error:
            raise InputError(f"cannot read {self._uri}: {error}") from error


def _send(bucket: str, key: str, part: tuple[int, int] | None, client: Any) -> tuple[bytes, int]:
    """One attempt."""
    asked = f"{part[0]}-{part[1] - 1}" if part else f"-{_TAIL_BYTES}"
    try:
        answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={asked}")
    except ClientError as error:
        if part is None and error.response["Error"]["Code"] == "InvalidRange":
            return b"", 0  # an object without a byte has no last ones
        raise
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    with answer["Body"] as stream:
        content = read_body(stream, headers)
    given = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("content-range", ""))
    first, last, size = map(int, given.groups()) if given else (0, -1, 0)
    begin, end = part or (max(0, size - _TAIL_BYTES), size)
    if (first, last + 1) != (begin, end) or len(content) != end - begin:
        raise PassingError("Truncated", "the store's answer is not the part that was asked for")
    return content, size

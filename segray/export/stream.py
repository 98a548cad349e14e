"""Streams: a file too large for memory, written whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from segray.storage.files import PARTIAL
from segray.storage.uri import explain_errors, file_system, is_local

# Of a part of an upload. S3 takes ten thousand of them.
_PART_BYTES = 64 << 20


@contextlib.contextmanager
def write_stream(uri: str) -> Iterator[BinaryIO]:
    """Open a file or object to write it from beginning to end.

    A reader sees the old one until the block ends, and then all of the new one. Where the block
    ends with an exception, the old one stays.

    Raises:
        InputError: it cannot be written.
    """
    with explain_errors(uri, "write"), _open_file(uri) if is_local(uri) else _open_object(uri) as f:
        yield f


@contextlib.contextmanager
def _open_file(uri: str) -> Iterator[BinaryIO]:
    path = Path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
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


@contextlib.contextmanager
def _open_object(uri: str) -> Iterator[BinaryIO]:
    # Committed by hand: left by an exception, s3fs would make an object of what it has by then.
    file = file_system(uri).open(uri, "wb", block_size=_PART_BYTES, autocommit=False)
    try:
        yield cast(BinaryIO, file)
        file.close()
        file.commit()
    except BaseException:
        file.discard()
        file.closed = True  # else it tries to send its buffer, now gone, when collected
        raise

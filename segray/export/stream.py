"""Streams: a file too large for memory, written whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from segray.storage.files import new_file
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
    opened = new_file(Path(uri)) if is_local(uri) else _open_object(uri)
    with explain_errors(uri, "write"), opened as file:
        yield file


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

"""Streams: write a file that is too large for memory, atomically."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from segray.storage.files import new_file
from segray.storage.uri import explain_errors, file_system, is_local

# The size of a part of an upload. S3 accepts 10,000 parts.
_PART_BYTES = 64 << 20


@contextlib.contextmanager
def write_stream(uri: str) -> Iterator[BinaryIO]:
    """Open a file or object for writing from beginning to end.

    Readers see the old content until the block ends, and then all of the new content. If the block
    ends with an exception, the old content stays.

    Raises:
        InputError: the file cannot be written.
    """
    opened = new_file(Path(uri)) if is_local(uri) else _open_object(uri)
    with explain_errors(uri, "write"), opened as file:
        yield file


@contextlib.contextmanager
def _open_object(uri: str) -> Iterator[BinaryIO]:
    # Committed explicitly, because after an exception s3fs would otherwise commit a partial object.
    file = file_system(uri).open(uri, "wb", block_size=_PART_BYTES, autocommit=False)
    try:
        yield cast(BinaryIO, file)
        file.close()
        file.commit()
    except BaseException:
        file.discard()
        file.closed = True  # else it tries to send its buffer, now gone, when collected
        raise

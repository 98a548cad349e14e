"""Archive: read the regular files in a .tar.gz of unknown origin, one after the other.

Nothing is unpacked to a path from the archive: the caller selects the members by the names it
expects, and writes their content where it wants it.
"""

import contextlib
import functools
import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from segray.errors import InputError

#: The maximum size of a file, in bytes. Files are read into memory.
MAX_FILE = 32 << 20

_MAX_MEMBERS = 100_000  # tarfile keeps a record of each
_MAX_BYTES = 16 << 30  # of the archive without its compression


@dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
        name: the name in the archive, without a leading ``./``; not to be trusted as a path.
        size: the size in bytes.
        read: returns the content; it must be called before the next member is requested.
    """

    name: str
    size: int
    read: Callable[[], bytes]


def read_members(archive: Path) -> Iterator[Member]:
    """Yield the regular files of an archive, in its order, without folders, links and devices.

    Raises:
        InputError: the archive is damaged, or has more members or bytes than a genuine one.
            `Member.read` raises it if a file is larger than `MAX_FILE`.
    """
    with _explain_damage(archive), gzip.open(archive) as compressed:
        file = _ForwardFile(compressed)
        tar = tarfile.TarFile(fileobj=cast(IO[bytes], file))  # it calls no other methods
        count = 0
        while (entry := tar.next()) is not None:
            count += 1
            if count > _MAX_MEMBERS:
                raise tarfile.ReadError(f"more than {_MAX_MEMBERS} members")
            if entry.isreg() and not entry.issparse():
                read = functools.partial(_read, archive, file, entry)
                yield Member(entry.name.removeprefix("./"), entry.size, read)


def _read(archive: Path, file: "_ForwardFile", entry: tarfile.TarInfo) -> bytes:
    if entry.size > MAX_FILE:
        raise InputError(
            f"cannot unpack {archive}: {entry.name[:80]!a} has {entry.size / 1e6:.0f} MB, and no "
            f"more than {MAX_FILE / 1e6:.0f} MB are taken"
        )
    with _explain_damage(archive):
        file.seek(entry.offset_data)
        content = file.read(entry.size)
        if len(content) != entry.size:
            raise EOFError("unexpected end of data")
        return content


@contextlib.contextmanager
def _explain_damage(archive: Path) -> Iterator[None]:
    try:
        yield
    # tarfile passes on whatever int() and the file object raise for a damaged header.
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, ArithmeticError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"cannot unpack {archive}: it is no sound .tar.gz ({reason})") from error


class _ForwardFile:
    """A compressed file for tarfile that is only read forwards, in pieces that fit in memory."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self._position = file, 0

    def read(self, size: int) -> bytes:
        # tarfile reads an extended header as a whole, whatever size it claims.
        if not 0 <= size <= MAX_FILE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        content = self._file.read(size)
        self._position += len(content)
        return content

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int) -> int:
        # A header with a negative size would make tarfile seek backwards, in an endless loop.
        if not self._position <= offset <= _MAX_BYTES:
            raise tarfile.ReadError("a member that lies outside the archive")
        while self._position < offset and self.read(min(offset - self._position, 1 << 20)):
            pass
        return self._position

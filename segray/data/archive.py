"""Archive: read the regular files in a .tar.gz, one after the other.

Nothing is unpacked to a path from the archive: the caller selects the members by the names it
expects, and writes their content where it wants it.
"""

import contextlib
import functools
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from segray.errors import InputError

#: The maximum size of a file, in bytes. Files are read into memory.
MAX_FILE = 32 << 20


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
        InputError: the archive is damaged. `Member.read` raises it, too, if a file is larger than
            `MAX_FILE`.
    """
    with _explain_damage(archive), tarfile.open(archive, "r|gz") as tar:
        for entry in tar:
            if entry.isreg():
                read = functools.partial(_read, archive, tar, entry)
                yield Member(entry.name.removeprefix("./"), entry.size, read)


def _read(archive: Path, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    if entry.size > MAX_FILE:
        raise InputError(
            f"cannot unpack {archive}: {entry.name[:80]!a} has {entry.size / 1e6:.0f} MB, and no "
            f"more than {MAX_FILE / 1e6:.0f} MB are taken"
        )
    with _explain_damage(archive):
        file = tar.extractfile(entry)
        assert file is not None, "a regular file has content"
        content = file.read()
        if len(content) != entry.size:
            raise EOFError("unexpected end of data")
        return content


@contextlib.contextmanager
def _explain_damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"cannot unpack {archive}: it is no sound .tar.gz ({reason})") from error

"""Listing: the objects below a URI, each with what tells it from an earlier version of itself."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segray.errors import InputError
from segray.storage.uri import exists, explain_errors, file_system, is_local


@dataclass(frozen=True)
class Entry:
    """A file or object.

    Attributes:
        uri: a local absolute path or an s3:// URI.
        size: in bytes.
        etag: the store's ETag; of a local file, its time of modification in nanoseconds.
    """

    uri: str
    size: int
    etag: str

    @property
    def id(self) -> int:
        """A signed 64-bit digest of all three: the same object, the same id; changed, another."""
        text = f"{self.uri}\0{self.size}\0{self.etag}"
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


def list_entries(root: str) -> list[Entry]:
    """All files below a folder or key prefix, at any depth, in the order of their URIs.

    Hidden files and folders (a name beginning with a dot) and the empty objects that stand for
    folders are left out.

    Raises:
        InputError: there is no such folder, a name in it is not Unicode, or the store cannot be
            asked.
    """
    with explain_errors(root, "list"):
        entries = sorted(
            _list_local(Path(root)) if is_local(root) else _list_s3(root),
            key=lambda entry: entry.uri,
        )
    if not entries and not exists(root):
        raise InputError(f"cannot list {root}: no such folder; check the path")
    return entries


def relative_key(root: str, uri: str) -> str:
    """The part of an entry's URI below the root it was listed from."""
    return uri.removeprefix(root.rstrip("/") + "/")


def _list_local(root: Path) -> Iterator[Entry]:
    # os.walk passes over what it cannot read unless it is told to raise.
    seen: set[str] = set()  # folders by their real path: links may lead round in a circle
    for folder, subfolders, names in os.walk(root, onerror=_raise, followlinks=True):
        seen.add(os.path.realpath(folder))
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and os.path.realpath(Path(folder, name)) not in seen
        ]
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or not path.is_file():
                continue
            status = path.stat()
            try:
                str(path).encode()
            except UnicodeEncodeError as error:
                raise InputError(f"the name of {path!a} is not UTF-8: rename it") from error
            yield Entry(str(path), status.st_size, f"{status.st_mtime_ns:x}")


def _raise(error: OSError) -> None:
    raise error


def _list_s3(root: str) -> Iterator[Entry]:
    found = file_system(root).find(root, detail=True)
    for key, info in found.items():
        uri = f"s3://{key}"
        hidden = any(name.startswith(".") for name in relative_key(root, uri).split("/"))
        if not hidden and not key.endswith("/"):
            yield Entry(uri, info["size"], info["ETag"].strip('"'))

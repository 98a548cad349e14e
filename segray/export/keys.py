"""Keys: under which name the file of an image is written, below the output and nowhere else."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from segray.errors import InputError
from segray.storage.listing import relative_key
from segray.storage.s3 import split_uri
from segray.storage.uri import is_local

# What no name may hold: it would end the name (NUL), lead elsewhere or be read as something else
# (s3fs takes ?versionId= for no part of a key), or show as nothing (control characters and line
# separators). The percent sign is among them, so that every escape can be undone.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\%?]")
# A slash that begins or ends an empty name.
_EMPTY_NAME = re.compile(r"^/|(?<=/)/|/$")
# How the names of files in an output end. No folder's name does, so that no file stands in the way
# of a folder.
_FILE_ENDINGS = (".png", ".jpg", ".json", ".jsonl", ".lock")

# In bytes: a name, as the file systems of Linux and macOS allow; a path, likewise, with room for
# the name of a file that is being written; a key in S3.
_MAX_NAME = 255
_MAX_PATH = 4000
_MAX_S3_KEY = 1024
_MIN_KEY = 200
_DIGEST_LETTERS = 32


@dataclass(frozen=True)
class Mirror:
    """How the keys of an export come from the URIs of images.

    Attributes:
        root: the folder that the images lie in; None where they have none in common.
        suffix: of the exported files; empty where there is none for each image.
        limit: of a key in bytes.
        ignore_case: whether two keys that differ in case, or in the form of Unicode, are one file.
    """

    root: str | None
    suffix: str
    limit: int
    ignore_case: bool

    @classmethod
    def of_output(cls, output: str, root: str | None, suffix: str) -> "Mirror":
        """The one for an output.

        Raises:
            InputError: the output's own URI is too long for keys below it.
        """
        place = output if is_local(output) else split_uri(output)[1]
        limit = (_MAX_PATH if is_local(output) else _MAX_S3_KEY) - len(place.encode()) - 1
        if limit < _MIN_KEY:
            raise InputError(f"{output} is too long for keys below it: give a shorter --output")
        return cls(root, suffix, limit, is_local(output) and _ignores_case(Path(output)))

    def key(self, uri: str) -> str | None:
        """The key of an image's file, or without a suffix the image's own; None if not below."""
        source = source_key(self.root, uri)
        if source is None or not self.suffix:
            return source
        return mirrored_key(source, self.suffix, self.limit)

    def digest(self, key: str) -> int:
        """A signed 64-bit digest of a key; the same for keys of one file."""
        if self.ignore_case:
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


def source_key(root: str | None, uri: str) -> str | None:
    """The name of an image, of which its exported name is made.

    Args:
        root: the folder that the images lie in; None where they have none in common.
        uri: of the image.

    Returns:
        Its key below the root, or without a root ``bucket/key`` or the path without its first
        slash; None where it does not lie below the root.
    """
    if root is None:
        return uri.removeprefix("s3://") if uri.startswith("s3://") else uri.removeprefix("/")
    key = relative_key(root, uri)
    return None if key == uri else key


def mirrored_key(source: str, suffix: str, limit: int) -> str:
    """The key below the output that mirrors a source's: its own, with a suffix appended.

    Names that are dangerous, or that the output keeps for itself, are percent-encoded: characters
    that no name should hold, the percent sign, an empty name's slash, the dot that a name begins
    with (``.`` and ``..`` and hidden files), and the last dot of a folder that is called like a
    file. `urllib.parse.unquote` of the key without suffix is the source again. A name over 255
    bytes, and a key over the limit, is cut, and ends with ``%~`` and a digest of the whole; an
    escape never looks like that. So two sources never have one key.

    Args:
        source: of `source_key`; of several parts between slashes.
        suffix: with its dot, in ASCII.
        limit: of the key in bytes, at least 200.
    """
    escaped = _UNSAFE.sub(lambda found: _percent(found[0]), source)
    *folders, name = _EMPTY_NAME.sub("%2F", escaped).split("/")
    names = [_shorten(_escape_folder(_escape_dot(folder)), _MAX_NAME) for folder in folders]
    names.append(_shorten(_escape_dot(name), _MAX_NAME - len(suffix)) + suffix)
    key = "/".join(names)
    if len(key.encode()) <= limit:
        return key
    last = f"%~{_digest(escaped)}{suffix}"
    room = limit - len(last) - 1
    while names and len("/".join(names).encode()) > room:
        names.pop()
    return "/".join([*names, last])


def _ignores_case(folder: Path) -> bool:
    """Whether a file system, as of macOS, takes names that differ in case only for one."""
    for path in (folder, *folder.parents):
        other = path.with_name(path.name.swapcase()) if path.name else path
        if other != path and path.exists():
            return other.exists() and other.samefile(path)
    return False


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _escape_dot(name: str) -> str:
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _escape_folder(name: str) -> str:
    if not name.endswith(_FILE_ENDINGS):
        return name
    stem, _, ending = name.rpartition(".")
    return f"{stem}%2E{ending}"


def _shorten(name: str, room: int) -> str:
    content = name.encode()
    if len(content) <= room:
        return name
    # A character that is cut in two is left out.
    head = content[: room - _DIGEST_LETTERS - 2].decode(errors="ignore")
    return f"{head}%~{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_LETTERS // 2).hexdigest()

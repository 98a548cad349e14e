"""Keys: the name, always below the output, under which the file of an image is written."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from segray.errors import InputError
from segray.storage.listing import relative_key
from segray.storage.s3 import split_uri
from segray.storage.uri import is_local

# Characters that are not safe in a name: they end it (NUL), lead elsewhere or are misread (s3fs
# takes ?versionId= as a version), or are invisible (control characters and line separators). The
# percent sign is included so that every escape can be undone.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\%?]")
# A slash that begins or ends an empty name.
_EMPTY_NAME = re.compile(r"^/|(?<=/)/|/$")
# The endings of files in an output. Folder names that end like this are escaped, so that no file is
# in the way of a folder.
_FILE_ENDINGS = (".png", ".jpg", ".json", ".jsonl", ".lock")

# Limits in bytes: of a name, on the file systems of Linux and macOS; of a path, likewise, less room
# for the name of a temporary file; of a key in S3.
_MAX_NAME = 255
_MAX_PATH = 4000
_MAX_S3_KEY = 1024
_MIN_KEY = 200
_DIGEST_LETTERS = 32


@dataclass(frozen=True)
class Mirror:
    """The mapping from the URIs of images to the keys of an export.

    Attributes:
        root: the folder that contains all images; None if there is none.
        suffix: the suffix of the exported files; empty if there is no file per image.
        limit: the maximum length of a key, in bytes.
        ignore_case: True if keys that differ only in case or Unicode normalisation are one file.
    """

    root: str | None
    suffix: str
    limit: int
    ignore_case: bool

    @classmethod
    def of_output(cls, output: str, root: str | None, suffix: str) -> "Mirror":
        """Return the mapping for an output.

        Raises:
            InputError: the URI of the output is too long to have keys below it.
        """
        place = output if is_local(output) else split_uri(output)[1]
        limit = (_MAX_PATH if is_local(output) else _MAX_S3_KEY) - len(place.encode()) - 1
        if limit < _MIN_KEY:
            raise InputError(f"{output} is too long for keys below it: give a shorter --output")
        return cls(root, suffix, limit, is_local(output) and _ignores_case(Path(output)))

    def key(self, uri: str) -> str | None:
        """Return the key of an image's file (without suffix, of the image), or None if outside."""
        source = source_key(self.root, uri)
        if source is None or not self.suffix:
            return source
        return mirrored_key(source, self.suffix, self.limit)

    def digest(self, key: str) -> int:
        """Return a signed 64-bit digest of a key, which is equal for keys of the same file."""
        if self.ignore_case:
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


def source_key(root: str | None, uri: str) -> str | None:
    """Return the name of an image from which its exported name is derived.

    Args:
        root: the folder that contains all images; None if there is none.
        uri: the URI of the image.

    Returns:
        The key below the root; without a root, ``bucket/key`` or the path without its first slash.
        None if the image is not below the root.
    """
    if root is None:
        return uri.removeprefix("s3://") if uri.startswith("s3://") else uri.removeprefix("/")
    key = relative_key(root, uri)
    return None if key == uri else key


def mirrored_key(source: str, suffix: str, limit: int) -> str:
    """Return the key below the output for a source: the source's own key, with a suffix appended.

    Names that are unsafe or reserved by the output are percent-encoded: unsafe characters, the
    percent sign, the slash of an empty name, a leading dot (``.``, ``..`` and hidden files), and
    the last dot of a folder that is named like a file. `urllib.parse.unquote` of the key without
    suffix returns the source. Names over 255 bytes and keys over the limit are truncated, and end
    with ``%~`` and a digest of the whole; no escape looks like that. Two sources therefore never
    share a key.

    Args:
        source: the result of `source_key`; several names with slashes in between.
        suffix: the suffix with its dot, in ASCII.
        limit: the maximum length of the key in bytes, at least 200.
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
    """Return True if the file system ignores the case of names, as that of macOS does."""
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
    # A character that would be split is left out.
    head = content[: room - _DIGEST_LETTERS - 2].decode(errors="ignore")
    return f"{head}%~{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_LETTERS // 2).hexdigest()

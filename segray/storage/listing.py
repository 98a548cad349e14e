"""Listing: the objects below a URI, each with what tells it from an earlier version of itself."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segray.errors import InputError
from segray.storage.objects import CONNECT_SECONDS, persist
from segray.storage.s3 import KeyPage, s3_client, split_uri
from segray.storage.uri import exists, explain_errors, is_local

# How many files of a local disk make a page: a page of S3's has as many.
_PAGE = 1000
# How long a store may take to look through a million keys for a page.
_PAGE_SECONDS = 20.0
_LAST_CHARACTER = "\U0010ffff"
# At how many characters a listing is divided, at most, where keys go on with more.
_BRANCHES = 64


@dataclass(frozen=True)
class Entry:
    """A file or object.

    Attributes:
        uri: a local absolute path or an s3:// URI.
        size: in bytes; None where nobody has said.
        etag: the store's ETag; of a local file, its time of modification in nanoseconds; empty
            where nobody has said.
    """

    uri: str
    size: int | None
    etag: str

    @property
    def id(self) -> int:
        """A signed 64-bit digest of all three: the same object, the same id; changed, another."""
        text = f"{self.uri}\0{self.size}\0{self.etag}"
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


@dataclass
class Page:
    """A part of a listing.

    Attributes:
        entries: in the order of their URIs.
        hidden: how many files with a name, or in a folder, that begins with a dot were passed over;
            on a local disk, such a folder counts as one.
        placeholders: how many empty objects that stand for folders were passed over.
        unreadable: how many local folders that this user may not read, names that are not UTF-8,
            links that lead nowhere, and pipes and the like were passed over.
    """

    entries: list[Entry] = field(default_factory=list)
    hidden: int = 0
    placeholders: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class Shard:
    """A part of what is below a URI, to be listed by itself.

    Attributes:
        root: the URI.
        after: only keys greater than this one; empty for no limit.
        upto: only keys up to this one; empty for no limit. Both are whole keys of a bucket.
    """

    root: str
    after: str = ""
    upto: str = ""


def list_entries(root: str) -> list[Entry]:
    """All files below a folder or key prefix, at any depth, in the order of their URIs.

    Hidden files and folders (a name beginning with a dot), the empty objects that stand for
    folders, links that lead nowhere, and pipes and the like are left out.

    Raises:
        InputError: there is no such folder, one below it cannot be read, a name in it is not
            Unicode, or the store cannot be asked.
    """
    return [entry for page in list_pages(Shard(root), strict=True) for entry in page.entries]


def list_pages(shard: Shard, strict: bool = False) -> Iterator[Page]:
    """What is below a folder or key prefix, a page at a time, in the order of URIs.

    In S3 that is the order of UTF-8. No more than a page is held in memory, and of a local disk
    the names of the folders above it.

    Args:
        shard: what to list.
        strict: whether a local folder or name that cannot be read is an error; else it is counted.

    Raises:
        InputError: there is no such folder, or the store cannot be asked.
    """
    with explain_errors(shard.root, "list"):
        if is_local(shard.root) and not Path(shard.root).is_dir():
            raise _no_folder(shard.root)
        found = False
        pages = _list_local(shard.root, strict) if is_local(shard.root) else _list_s3(shard)
        for page in pages:
            found = found or page != Page()
            yield page
    is_whole = not (shard.after or shard.upto)
    if not found and is_whole and (not exists(shard.root) or _is_key(shard.root)):
        raise _no_folder(shard.root)


def _is_key(root: str) -> bool:
    """Whether a URI that is there, with nothing below it, names an object and no whole bucket."""
    return not is_local(root) and bool(split_uri(root)[1])


def _no_folder(root: str) -> InputError:
    if set(root) & set("*?[") and not exists(root):
        return InputError(
            f"cannot list {root}: no such folder; give a folder, patterns are not expanded here"
        )
    if exists(root):
        return InputError(f"cannot list {root}: it is a file; give the folder that it is in")
    return InputError(f"cannot list {root}: no such folder; check the path")


def split_listing(root: str, parts: int) -> list[Shard]:
    """Divide what is below a key prefix into about so many parts that can be listed at once.

    Finds out with which characters keys go on, a short request for each, and goes deeper where
    that gives too few parts. The parts cover every key once, whatever was found. A listing that
    fits into one answer stays whole, and so does a local folder.

    Raises:
        InputError: the store cannot be asked.
    """
    if is_local(root) or parts < 2:
        return [Shard(root)]
    bucket, key = split_uri(root)
    base = f"{key.rstrip('/')}/" if key else ""
    with explain_errors(root, "list"):
        first = next(list_keys(bucket, base))
        if len(first.objects) < _PAGE:
            return [Shard(root)]
        bounds = _find_bounds(bucket, base, parts)
    return [
        Shard(root, after, upto) for after, upto in zip(["", *bounds], [*bounds, ""], strict=True)
    ]


def list_keys(
    bucket: str, prefix: str, after: str = "", delimiter: str = "", page_size: int = 1000
) -> Iterator[KeyPage]:
    """The keys with a prefix and above ``after``, a page at a time; what may pass is tried again.

    Raises:
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: the store does not
            answer, or refuses to.
        botocore.parsers.ResponseParserError: what answers is no S3.
    """
    settings = {"Bucket": bucket, "Prefix": prefix, "EncodingType": "url", "MaxKeys": page_size}
    if after:
        settings["StartAfter"] = after
    if delimiter:
        settings["Delimiter"] = delimiter
    while True:
        answer = persist(
            f"s3://{bucket}/{prefix}",
            lambda: s3_client(CONNECT_SECONDS, _PAGE_SECONDS).list_objects_v2(**settings),
        )
        yield answer["Page"]
        token = answer["Token"]
        if token is None:
            return
        settings["ContinuationToken"] = token


def relative_key(root: str, uri: str) -> str:
    """The part of an entry's URI below the root it was listed from."""
    return uri.removeprefix(root.rstrip("/") + "/")


def _find_bounds(bucket: str, base: str, parts: int) -> list[str]:
    """Keys, or beginnings of keys, at which a listing can be divided, in ascending order."""
    prefixes = [base]
    for _ in range(64):  # of depth: keys may share a long beginning
        deeper: list[str] = []
        for place, prefix in enumerate(prefixes):
            if len(deeper) + len(prefixes) - place >= 2 * parts:
                deeper += prefixes[place:]  # enough; each request takes its time
                break
            deeper += _next_prefixes(bucket, prefix)
        if not deeper or deeper == prefixes:
            break
        prefixes = deeper
        if len(prefixes) >= parts:
            break
    # Each of them ends where the next one begins, and the last has no end.
    return [prefix + _LAST_CHARACTER for prefix in prefixes[:-1]]


def _next_prefixes(bucket: str, prefix: str) -> list[str]:
    """The prefix with each character that keys have after it, ascending; itself if none has."""
    found: list[str] = []
    after = ""
    while True:
        page = next(list_keys(bucket, prefix, after, page_size=2))
        keys = [key for key, *_ in page.objects if key != prefix]
        if not keys:
            return found or [prefix]
        if not found and len(keys) == 1 and len(page.objects) == 1:
            return [prefix]  # a single key is not divided further
        found.append(keys[0][: len(prefix) + 1])
        after = found[-1] + _LAST_CHARACTER
        if len(found) == _BRANCHES:
            return found  # what comes after the last of them is listed with it


def _list_s3(shard: Shard) -> Iterator[Page]:
    bucket, key = split_uri(shard.root)
    base = f"{key.rstrip('/')}/" if key else ""
    start = max(0, len(base) - 1)
    for keys in list_keys(bucket, base, shard.after):
        page = Page()
        for name, size, etag in keys.objects:
            if shard.upto and name > shard.upto:
                yield page
                return
            if "/." in name[start:] or name.startswith(".", len(base)):
                # Seldom: a closer look, for in S3 `.` and `..` are names like any other.
                hidden = any(
                    part.startswith(".") and part not in (".", "..")
                    for part in name[len(base) :].split("/")
                )
            else:
                hidden = False
            if hidden:
                page.hidden += 1
            elif name.endswith("/"):
                page.placeholders += 1
            else:
                page.entries.append(Entry(f"s3://{bucket}/{name}", size, etag))
        yield page


def _list_local(root: str, strict: bool) -> Iterator[Page]:
    page = Page()
    for found in _walk(root, set()):
        if found is None:
            page.hidden += 1
            continue
        try:
            if isinstance(found, OSError):
                raise found
            found.encode()
            status = os.stat(found)  # noqa: PTH116 - a million Path objects take their time
        except UnicodeEncodeError as error:
            if strict:
                raise InputError(f"the name of {found!a} is not UTF-8: rename it") from error
            page.unreadable += 1
        except FileNotFoundError:
            # A link that leads nowhere; anything else was there a moment ago.
            page.unreadable += isinstance(found, str) and os.path.islink(found)  # noqa: PTH114
        except OSError:
            if strict:
                raise
            page.unreadable += 1
        else:
            if not stat.S_ISREG(status.st_mode):
                page.unreadable += 1
                continue
            page.entries.append(Entry(found, status.st_size, f"{status.st_mtime_ns:x}"))
            if len(page.entries) == _PAGE:
                yield page
                page = Page()
    yield page


def _walk(folder: str, seen: set[str]) -> Iterator[str | OSError | None]:
    """What is below a folder, in the order of paths: None for what is hidden, a folder's error."""
    is_root = not seen
    seen.add(os.path.realpath(folder))  # links may lead round in a circle
    names: list[str] = []
    try:
        with os.scandir(folder) as found:
            for item in found:
                # With a slash, as the paths of a folder's files go on, so that all come in order.
                names.append(f"{item.name}/" if _is_folder(item) else item.name)
    except OSError as error:
        if is_root:
            raise
        yield error
        return
    for name in sorted(names):
        path = os.path.join(folder, name)  # noqa: PTH118
        if name.startswith("."):
            yield None
        elif not name.endswith("/"):
            yield path
        elif os.path.realpath(path) not in seen:
            yield from _walk(path.rstrip("/"), seen)


def _is_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:
        return False  # a link into a circle, or to where this user may not look

"""Listing: the objects below a URI, each with its version."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segray.errors import InputError
from segray.storage.objects import CONNECT_SECONDS, retry
from segray.storage.s3 import KeyPage, s3_client, split_uri
from segray.storage.uri import exists, explain_errors, is_local

# The number of local files in a page, which is that of a page of S3.
_PAGE = 1000
# The time limit for a page; a store may scan a million keys for it.
_PAGE_SECONDS = 20.0
_LAST_CHARACTER = "\U0010ffff"
# The maximum number of characters at which a prefix is divided.
_BRANCHES = 64


@dataclass(frozen=True)
class Entry:
    """A file or object.

    Attributes:
        uri: a local absolute path or an s3:// URI.
        size: the size in bytes; None if unknown.
        etag: the store's ETag; for a local file, its modification time in nanoseconds; empty if
            unknown.
    """

    uri: str
    size: int | None
    etag: str

    @property
    def id(self) -> int:
        """A signed 64-bit digest of all attributes: the same object, unchanged, has the same id."""
        text = f"{self.uri}\0{self.size}\0{self.etag}"
        digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


@dataclass
class Page:
    """A page of a listing.

    Attributes:
        entries: the files, in the order of their URIs.
        hidden: the number of skipped files whose name, or folder, begins with a dot. On a local
            disk such a folder counts as one.
        placeholders: the number of skipped empty objects that stand for folders.
        unreadable: the number of skipped names that are not UTF-8, dangling links, pipes and the
            like, on a local disk.
        unseen: the number of skipped local files and folders that could not be looked at.
    """

    entries: list[Entry] = field(default_factory=list)
    hidden: int = 0
    placeholders: int = 0
    unreadable: int = 0
    unseen: int = 0


@dataclass(frozen=True)
class Shard:
    """A range of the keys below a URI, which can be listed on its own.

    Attributes:
        root: the URI.
        after: list keys greater than this one only; empty for no limit.
        upto: list keys up to this one only; empty for no limit. Both are whole keys of a bucket.
    """

    root: str
    after: str = ""
    upto: str = ""


def list_entries(root: str) -> list[Entry]:
    """List all files below a folder or key prefix, at any depth, in the order of their URIs.

    Hidden files and folders (whose name begins with a dot), empty objects that stand for folders,
    dangling links, pipes and the like are left out.

    Raises:
        InputError: there is no such folder, one below it cannot be read, a name in it is not
            Unicode, or the store cannot be asked.
    """
    return [entry for page in list_pages(Shard(root), strict=True) for entry in page.entries]


def list_pages(shard: Shard, strict: bool = False) -> Iterator[Page]:
    """Yield the files below a folder or key prefix by pages, in the order of their URIs.

    In S3 this is the order of UTF-8. Memory holds at most one page and, for a local disk, the names
    in the folders above it.

    Args:
        shard: the range to list.
        strict: True if a local folder or name that cannot be read is an error; otherwise it is
            counted.

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
    """Return True if an existing URI, with nothing below it, is an object and not a bucket."""
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
    """Divide the keys below a prefix into about `parts` shards that can be listed in parallel.

    Short requests determine the characters that follow the prefix, and those that follow longer
    prefixes if there are too few shards. The shards cover every key exactly once in any case. A
    listing of a single page is not divided, nor is a local folder.

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
    """Yield the keys with a prefix and greater than ``after`` by pages; retry transient failures.

    Raises:
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: the store does not
        answer or refuses the request.
        botocore.parsers.ResponseParserError: the answer is not that of an S3 store.
        InputError: the store has more keys, but does not say how to ask for them.
    """
    settings = {"Bucket": bucket, "Prefix": prefix, "EncodingType": "url", "MaxKeys": page_size}
    if after:
        settings["StartAfter"] = after
    if delimiter:
        settings["Delimiter"] = delimiter
    while True:
        answer = retry(
            f"s3://{bucket}/{prefix}",
            lambda: s3_client(CONNECT_SECONDS, _PAGE_SECONDS).list_objects_v2(**settings),
        )
        yield answer["Page"]
        token = answer["Token"]
        if token is None:
            return
        if not token:
            raise InputError(
                f"cannot list s3://{bucket}/{prefix}: the store says that there are more keys, and "
                "not how to go on (it sends no NextContinuationToken): it is not enough like S3"
            )
        settings["ContinuationToken"] = token


def relative_key(root: str, uri: str) -> str:
    """Return the part of an entry's URI below the root of its listing."""
    return uri.removeprefix(root.rstrip("/") + "/")


def _find_bounds(bucket: str, base: str, parts: int) -> list[str]:
    """Return keys, or prefixes of keys, that divide a listing, in ascending order."""
    prefixes = [base]
    for _ in range(64):  # levels, as keys may share a long prefix
        deeper: list[str] = []
        for place, prefix in enumerate(prefixes):
            if len(deeper) + len(prefixes) - place >= 2 * parts:
                deeper += prefixes[place:]  # enough, as each request takes time
                break
            deeper += _next_prefixes(bucket, prefix)
        if not deeper or deeper == prefixes:
            break
        prefixes = deeper
        if len(prefixes) >= parts:
            break
    # Each shard ends where the next one begins; the last one has no end.
    return [prefix + _LAST_CHARACTER for prefix in prefixes[:-1]]


def _next_prefixes(bucket: str, prefix: str) -> list[str]:
    """Return the prefix extended by each character that follows it in a key, or itself if none."""
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
            return found  # the last one covers all later keys


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
                # Rare, hence the second check: in S3, `.` and `..` are ordinary names.
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
            # Dangling links are counted; any other file has just been deleted.
            page.unreadable += isinstance(found, str) and os.path.islink(found)  # noqa: PTH114
        except OSError as error:
            if strict:
                raise
            if error.errno == errno.ELOOP:  # a link to itself
                page.unreadable += 1
            else:
                page.unseen += 1
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
    """Yield the paths below a folder in order: None for a hidden one, an error for a folder."""
    is_root = not seen
    seen.add(os.path.realpath(folder))  # links may form a cycle
    names: list[str] = []
    try:
        with os.scandir(folder) as found:
            for item in found:
                # Sort folders with their slash, so that paths come in the order of whole URIs.
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
        return False  # a cyclic link, or one without permission

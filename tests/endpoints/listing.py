"""A bucket of any number of keys, made up while they are asked for, that lists itself like S3.

    python -m tests.endpoints --count 1000000 --pattern nested

prints its URL and serves ListObjectsV2 and HeadBucket, for a bucket of any name, until its standard
input ends. There are no bodies behind the keys.
"""

import argparse
import asyncio
import base64
import functools
import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.endpoints.server import Head, Server, read_body, read_head

# In the order of their UTF-8, and not in that of their UTF-16 or of any language.
_TOPS = ("2026 spring", "Archive+old", "a&b", "z%2F", "\u00e9t\u00e9", "\ufb01n", "\U0001f408")
_FOLDER = 1000  # keys to a folder

_PAGE = 1000  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html


class Keys:
    """`count` keys in the order of their UTF-8 bytes, each made from its number.

    Patterns:
        flat: ``000000000.jpg``, ``000000001.jpg``, ...
        nested: ``2026 spring/000000/000000000.jpg``, ...: seven folders at the top, and in each
            folders of a thousand keys.
    """

    def __init__(self, count: int, pattern: str) -> None:
        self.count = count
        self.key: Callable[[int], str] = {"flat": self._flat, "nested": self._nested}[pattern]

    def _flat(self, number: int) -> str:
        return f"{number:09d}.jpg"

    def _nested(self, number: int) -> str:
        top = _TOPS[number * len(_TOPS) // self.count]
        return f"{top}/{number // _FOLDER:06d}/{number:09d}.jpg"

    def first(self, is_reached: Callable[[str], bool], low: int = 0) -> int:
        """The number of the first key from `low` on for which this holds; it does so ever after."""
        high = self.count
        while low < high:
            middle = (low + high) // 2
            if is_reached(self.key(middle)):
                high = middle
            else:
                low = middle + 1
        return low


def list_page(keys: Keys, bucket: str, query: dict[str, str]) -> tuple[bytes, int]:
    """The answer to a ListObjectsV2, and how many keys and common prefixes are in it."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    size = min(int(query.get("max-keys", _PAGE)), _PAGE)
    token = query.get("continuation-token")
    after = query.get("start-after", "")
    if token:
        number = int(base64.b64decode(token))
    else:
        # Python compares strings by code points, which is the order of their UTF-8.
        number = keys.first(lambda key: key >= prefix and key > after)
    end = keys.first(lambda key: key > prefix and not key.startswith(prefix))
    encode = _quote if query.get("encoding-type") == "url" else _escape
    contents: list[str] = []
    folders: list[str] = []
    while number < end and len(contents) + len(folders) < size:
        key = keys.key(number)
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            contents.append(
                f"<Contents><Key>{encode(key)}</Key>"
                "<LastModified>2026-01-02T03:04:05.000Z</LastModified>"
                f"<ETag>&quot;{number:032x}&quot;</ETag><Size>{100_000 + number % 1000}</Size>"
                "<StorageClass>STANDARD</StorageClass></Contents>"
            )
            number += 1
        else:
            folder = key[: cut + len(delimiter)]
            folders.append(f"<CommonPrefixes><Prefix>{encode(folder)}</Prefix></CommonPrefixes>")
            number = keys.first(lambda key: not key.startswith(folder), number)  # noqa: B023
    count = len(contents) + len(folders)
    # With a page size of nothing, S3 says that nothing is left.
    is_truncated = number < end and size > 0
    fields = {
        "Name": bucket,
        "Prefix": encode(prefix),
        "Delimiter": encode(delimiter),
        "MaxKeys": str(size),
        "EncodingType": query.get("encoding-type", ""),
        "KeyCount": str(count),
        "StartAfter": encode(after),
        "ContinuationToken": token or "",
        "IsTruncated": "true" if is_truncated else "false",
        "NextContinuationToken": base64.b64encode(b"%d" % number).decode() * is_truncated,
    }
    head = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items() if value)
    body = "".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>\n',
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">',
            head,
            *contents,
            *folders,
            "</ListBucketResult>",
        ]
    )
    return body.encode(), count


def _quote(text: str) -> str:
    folder, slash, name = text.rpartition("/")
    return _quote_folder(folder) + slash + urllib.parse.quote(name)


# Quoting is most of what a page costs, and many keys lie in one folder.
_quote_folder = functools.lru_cache(64)(urllib.parse.quote)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class _ListingServer(Server):
    def __init__(self, keys: Keys, latency: float) -> None:
        self._keys, self._latency = keys, latency
        self._counts: Counter[str] = Counter()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_head(reader):
            async for _ in read_body(reader, request):
                pass
            method, target, _ = request.start.decode().split(" ")
            status, body = self._answer(method, target)
            if self._latency and target != "/__counts":
                await asyncio.sleep(self._latency)
            kind = b"application/json" if target == "/__counts" else b"application/xml"
            fields = [(b"Content-Type", kind), (b"Content-Length", b"%d" % len(body))]
            writer.write(Head(b"HTTP/1.1 " + status, fields).to_bytes())
            if method != "HEAD":
                writer.write(body)
            await writer.drain()

    def _answer(self, method: str, target: str) -> tuple[bytes, bytes]:
        path, _, query = target.partition("?")
        parameters = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        bucket, _, key = path[1:].partition("/")
        if target == "/__counts":
            return b"200 OK", json.dumps(self._counts).encode()
        if method == "HEAD" and bucket and not key:
            self._counts["HeadBucket"] += 1
            return b"200 OK", b""
        if method == "GET" and not key and parameters.get("list-type") == "2":
            self._counts["ListObjectsV2"] += 1
            body, count = list_page(self._keys, bucket, parameters)
            self._counts["keys"] += count
            return b"200 OK", body
        self._counts["other"] += 1
        return b"501 Not Implemented", b"<Error><Code>NotImplemented</Code></Error>"


class PagedListing:
    """A bucket that lists `count` keys, in a process of its own while its ``with`` block lasts.

    Attributes:
        url: of the endpoint; give it as AWS_ENDPOINT_URL.
        keys: what it lists.
    """

    url: str

    def __init__(self, count: int, pattern: str = "flat", latency: float = 0.0) -> None:
        """Prepare it.

        Args:
            count: how many keys.
            pattern: of the keys, see `Keys`.
            latency: seconds that each answer is held back.
        """
        self.keys = Keys(count, pattern)
        self._command = [sys.executable, "-m", "tests.endpoints", f"--count={count}"]
        self._command += [f"--pattern={pattern}", f"--latency={latency}"]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the listing's process did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    @property
    def counts(self) -> dict[str, int]:
        """How many requests it has answered, by operation, and how many ``keys`` were in them."""
        with urllib.request.urlopen(f"{self.url}/__counts") as answer:
            counts: dict[str, int] = json.load(answer)
        return counts

    @property
    def peak_memory(self) -> int:
        """Of the endpoint's process, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--pattern", choices=["flat", "nested"], default="flat")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    flags = parser.parse_args()
    with _ListingServer(Keys(flags.count, flags.pattern), flags.latency) as server:
        print(server.url, flush=True)
        sys.stdin.read()

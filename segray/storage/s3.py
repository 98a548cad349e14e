"""S3 as botocore speaks it: one client for each process, and pages of listings, parsed quickly."""

import functools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

_CONNECTIONS = 32
_CLIENT_LOCK = threading.Lock()


@dataclass(frozen=True)
class KeyPage:
    """One answer of ListObjectsV2.

    Attributes:
        objects: key, size in bytes, and ETag without its quotes, in the order of UTF-8.
        prefixes: what a delimiter has rolled up.
    """

    objects: list[tuple[str, int, str]]
    prefixes: list[str]


def s3_client() -> Any:
    """This process's client of the store that the standard AWS environment names; thread-safe."""
    with _CLIENT_LOCK:
        return _make_client()


@functools.cache
def _make_client() -> Any:
    import botocore.handlers
    import botocore.session
    from botocore.config import Config

    client = botocore.session.get_session().create_client(
        "s3",
        region_name=os.environ.get("AWS_REGION"),  # botocore itself reads AWS_DEFAULT_REGION only
        config=Config(
            max_pool_connections=_CONNECTIONS,
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 8},
        ),
    )
    client.meta.events.register("before-parse.s3.ListObjectsV2", _parse_listing)
    # A body is parsed once: botocore's own handler, which comes first wherever another one is
    # registered, parses the whole of it in search of an error. `_parse_listing` finds that too.
    parses_all = getattr(botocore.handlers, "_handle_200_error", None)
    if parses_all:
        client.meta.events.unregister("before-parse.s3.*", parses_all)
    return client


def forget_client() -> None:
    """Let the next request look for endpoint, region and credentials anew."""
    with _CLIENT_LOCK:
        _make_client.cache_clear()


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def list_keys(
    bucket: str, prefix: str, after: str = "", delimiter: str = "", page_size: int = 1000
) -> Iterator[KeyPage]:
    """The keys with a prefix and above ``after``, a page at a time.

    Raises:
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: the store does not
            answer, or refuses to.
    """
    settings = {"Bucket": bucket, "Prefix": prefix, "EncodingType": "url", "MaxKeys": page_size}
    if after:
        settings["StartAfter"] = after
    if delimiter:
        settings["Delimiter"] = delimiter
    while True:
        answer = s3_client().list_objects_v2(**settings)
        yield answer["Page"]
        token = answer["Token"]
        if token is None:
            return
        settings["ContinuationToken"] = token


def _parse_listing(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Parse a page in an eighth of the time that botocore's own parser takes (it parses dates)."""
    if response_dict["status_code"] != 200:
        return
    try:
        root = ElementTree.fromstring(response_dict["body"])
    except ElementTree.ParseError:
        return  # botocore says what is wrong with it
    if not root.tag.endswith("ListBucketResult"):
        # An error, though the status says that all is well: botocore tries again after a 500.
        response_dict["status_code"] = 500
        return
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    objects = [
        (
            _decode(item.findtext(f"{space}Key", "")),
            int(item.findtext(f"{space}Size", "0")),
            item.findtext(f"{space}ETag", "").strip('"'),
        )
        for item in root.iterfind(f"{space}Contents")
    ]
    prefixes = [
        _decode(item.text or "") for item in root.iterfind(f"{space}CommonPrefixes/{space}Prefix")
    ]
    truncated = root.findtext(f"{space}IsTruncated") == "true"
    customized_response_dict["Page"] = KeyPage(objects, prefixes)
    customized_response_dict["Token"] = (
        root.findtext(f"{space}NextContinuationToken") if truncated else None
    )
    response_dict["body"] = b"<ListBucketResult/>"


def _decode(key: str) -> str:
    """Undo the URL encoding of a listing; most keys have none to undo, or their folder alone."""
    if "%" not in key and "+" not in key:
        return key
    folder, slash, name = key.rpartition("/")
    return _decode_folder(folder) + slash + unquote_plus(name)


# The keys of a folder come one after the other.
_decode_folder = functools.lru_cache(64)(unquote_plus)

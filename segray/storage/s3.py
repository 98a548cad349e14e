"""S3 through botocore: the clients of a process, and a fast parser of listings.

Endpoint, region and credentials come from the standard AWS environment.
"""

import functools
import os
import re
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from segray.storage.access import S3Access
from segray.storage.requests import count_requests_of

#: Client settings: S3's newer checksums, which many other stores refuse, are sent only with
#: requests that require them.
CHECKSUMS = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}

# ARNs of access points of S3, of Outposts and of Object Lambda, in botocore's forms.
_ACCESS_POINT = re.compile(
    r"arn:aws[\w-]*:s3[\w-]*:[\w-]*:\d{12}:(outpost[/:][\w-]+[/:])?accesspoint[/:][\w.-]+(?=/|$)"
)

# The number of concurrent requests of one client.
_CONNECTIONS = 32
# The clients by their settings, each with the time of its creation.
_CLIENTS: dict[tuple[float, float], tuple[Any, float]] = {}
_CLIENTS_LOCK = threading.Lock()


@dataclass(frozen=True)
class KeyPage:
    """One answer of ListObjectsV2.

    Attributes:
        objects: key, size in bytes, and ETag without quotes, in the order of UTF-8.
        prefixes: the common prefixes that a delimiter gives.
    """

    objects: list[tuple[str, int, str]]
    prefixes: list[str]


def s3_client(connect_seconds: float, read_seconds: float) -> Any:
    """Return this process's client with these settings. It is thread-safe and does not retry.

    Args:
        connect_seconds: the timeout of connecting.
        read_seconds: the timeout of waiting for a byte.
    """
    settings = (connect_seconds, read_seconds)
    with _CLIENTS_LOCK:
        if settings not in _CLIENTS:
            _CLIENTS[settings] = _make_client(*settings), time.monotonic()
        return _CLIENTS[settings][0]


def forget_client(age: float = 0.0) -> None:
    """Make the next request look up endpoint, region and credentials again.

    Args:
        age: in seconds; younger clients are kept.
    """
    with _CLIENTS_LOCK:
        for settings, (_, made) in list(_CLIENTS.items()):
            if time.monotonic() - made >= age:
                del _CLIENTS[settings]


def _make_client(connect_seconds: float, read_seconds: float) -> Any:
    import botocore.handlers
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.session import Session

    access = S3Access.of_environment()
    client = Session().create_client(
        "s3",
        region_name=os.environ.get("AWS_REGION"),  # botocore itself reads AWS_DEFAULT_REGION only
        config=Config(
            max_pool_connections=_CONNECTIONS,
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            retries={"mode": "standard", "total_max_attempts": 1},
            signature_version=UNSIGNED if access.s3_unsigned else None,
            **CHECKSUMS,
        ),
    )

    def complete(params: dict[str, Any], model: Any, **_: Any) -> None:
        known = model.input_shape.members if model.input_shape else {}
        for name, value in access.parameters.items():
            if name in known:
                params.setdefault(name, value)

    count_requests_of(client)
    events = client.meta.events
    events.register("provide-client-params.s3", complete)
    events.register("before-parse.s3.ListObjectsV2", _parse_listing)
    # Parse each page once. botocore's own handler, which comes first and which no setting removes
    # (boto/botocore#3276), would parse the whole page in search of an error, which `_parse_listing`
    # finds as well.
    parses_all = getattr(botocore.handlers, "_handle_200_error", None)
    if parses_all:

        def parse_others(operation_model: Any, **rest: Any) -> None:
            if operation_model.name != "ListObjectsV2":
                parses_all(operation_model=operation_model, **rest)

        events.unregister("before-parse.s3.*", parses_all)
        events.register("before-parse.s3.*", parse_others)
    return client


def split_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key`` in two; the bucket may be the ARN of an access point."""
    place = uri.removeprefix("s3://")
    point = _ACCESS_POINT.match(place)
    if point:
        return point[0], place[point.end() + 1 :]
    bucket, _, key = place.partition("/")
    return bucket, key


def is_access_point(bucket: str) -> bool:
    """Return True if a bucket is given as the ARN of an access point."""
    return bool(_ACCESS_POINT.fullmatch(bucket))


def _parse_listing(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Parse a page in an eighth of the time of botocore's parser, which parses dates."""
    from botocore.parsers import ResponseParserError

    if response_dict["status_code"] != 200:
        return
    try:
        root = ElementTree.fromstring(response_dict["body"])
    except ElementTree.ParseError as error:
        # botocore would take an empty answer for an empty listing.
        raise ResponseParserError(f"no listing: {error}") from error
    if not root.tag.endswith("ListBucketResult"):
        # An error with the status of success. As a 500, botocore reports it as an error.
        response_dict["status_code"] = 500
        return
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    # A store that does not know the encoding sends keys as they are, which may contain % and +.
    decode = _decode if root.findtext(f"{space}EncodingType") == "url" else str
    objects = [
        (
            decode(item.findtext(f"{space}Key", "")),
            int(item.findtext(f"{space}Size", "0")),
            item.findtext(f"{space}ETag", "").strip('"'),
        )
        for item in root.iterfind(f"{space}Contents")
    ]
    prefixes = [
        decode(item.text or "") for item in root.iterfind(f"{space}CommonPrefixes/{space}Prefix")
    ]
    truncated = root.findtext(f"{space}IsTruncated") == "true"
    customized_response_dict["Page"] = KeyPage(objects, prefixes)
    # None after the last page; empty if the store does not say how to go on.
    customized_response_dict["Token"] = (
        root.findtext(f"{space}NextContinuationToken", "") if truncated else None
    )
    response_dict["body"] = b"<ListBucketResult/>"


def _decode(key: str) -> str:
    """Undo the URL encoding of a key. Most keys have nothing to undo, or only in their folder."""
    if "%" not in key and "+" not in key:
        return key
    folder, slash, name = key.rpartition("/")
    return _decode_folder(folder) + slash + unquote_plus(name)


# The keys of a folder follow each other, so a small cache is enough.
_decode_folder = functools.lru_cache(64)(unquote_plus)

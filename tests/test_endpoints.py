"""The tests' own S3 endpoints: that they count, fail and list as they say."""

import asyncio
import http.client
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.endpoints import CountingProxy, FaultyProxy, PagedListing, PeculiarStore
from tests.endpoints.proxy import FAULTS
from tests.endpoints.server import Head, Server, read_body, read_head

BODY = bytes(range(256)) * 40


class Echo(Server):
    """Answers with the request that it got; under /bucket/body, with BODY; closes or not."""

    def __init__(self, chunked: bool = False, closes: bool = False) -> None:
        self._chunked, self._closes = chunked, closes

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_head(reader):
            body = b"".join([piece async for piece in read_body(reader, request)])
            echo = BODY if b"/bucket/body" in request.start else request.to_bytes() + body
            fields = [(b"ETag", b'"echo"')]
            if self._closes:
                fields.append((b"Connection", b"close"))
            if self._chunked:
                fields.append((b"Transfer-Encoding", b"chunked"))
                half = len(echo) // 2
                pieces = [echo[:half], echo[half:], b""]
                echo = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            else:
                fields.append((b"Content-Length", b"%d" % len(echo)))
            writer.write(Head(b"HTTP/1.1 200 OK", fields).to_bytes() + echo)
            await writer.drain()
            if self._closes:
                return


@pytest.fixture(params=["kept", "closed"])
def echo(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Echo(closes=request.param == "closed") as server:
        yield server


def connect(server: Server, timeout: float = 30) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=timeout)


def get(server: Server, path: str, timeout: float = 30) -> str:
    """What a GET comes to: the status, or the exception's name."""
    connection = connect(server, timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.read() == BODY and answer.headers["ETag"] == '"echo"':
            return "whole"
        return str(answer.status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


@pytest.mark.parametrize(
    "target",
    ["/bucket/a/../b//c", "/bucket/..", "/bucket/%2F%2f?versionId=%00&x", "/bucket/a;b?c=d+e#f"],
)
def test_a_request_passes_byte_by_byte(echo: Server, target: str) -> None:
    sent = f"PUT {target} HTTP/1.1\r\nhOsT: me:1\r\nX-Amz-Date: 1\r\nContent-Length: 3\r\n\r\nabc"
    with CountingProxy(echo.url) as proxy:
        port = int(proxy.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(sent.encode())
            client.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert answer.partition(b"\r\n\r\n")[2] == sent.encode()


def test_a_client_keeps_its_connection(echo: Server) -> None:
    with CountingProxy(echo.url) as proxy:
        connection = connect(proxy)
        for number in range(20):
            connection.request("GET", f"/bucket/{number}")
            assert f"GET /bucket/{number} ".encode() in connection.getresponse().read()
        connection.close()
        assert proxy.connections == 1
        assert proxy.requests == {"GET": 20}


@pytest.mark.parametrize("chunked", [False, True])
def test_large_and_chunked_bodies_pass_both_ways(chunked: bool) -> None:
    body = b"0123456789abcdef" * (1 << 18)
    with Echo(chunked) as echo, CountingProxy(echo.url) as proxy:
        connection = connect(proxy)
        connection.request("PUT", "/bucket/large", iter([body]) if chunked else body)
        received = connection.getresponse().read()
        connection.request("GET", "/bucket/small")
        assert b"GET /bucket/small" in connection.getresponse().read()
        connection.close()
    assert body in received


def test_gets_are_counted_by_key_and_not_those_of_the_bucket(s3: Callable[[str], str]) -> None:
    s3("endpoints-counted")
    with CountingProxy(boto3.client("s3").meta.endpoint_url) as proxy:
        client = boto3.client("s3", endpoint_url=proxy.url)
        for key in ("a b/é.jpg", "c?d", "a//../b"):
            client.put_object(Bucket="endpoints-counted", Key=key, Body=b"x" * 3000)
        for key in ("a b/é.jpg", "a b/é.jpg", "c?d"):
            client.get_object(Bucket="endpoints-counted", Key=key)["Body"].read()
        client.head_object(Bucket="endpoints-counted", Key="c?d")
        client.list_objects_v2(Bucket="endpoints-counted")
    assert proxy.gets == {"endpoints-counted/a b/é.jpg": 2, "endpoints-counted/c?d": 1}
    assert proxy.requests == {"PUT": 3, "GET": 4, "HEAD": 1}
    assert not proxy.faults


@pytest.mark.parametrize(
    ("kind", "outcomes"),
    [
        ("slow_down", {"503"}),
        ("internal_error", {"500"}),
        ("expired_token", {"400"}),
        ("reset", {"ConnectionResetError"}),
        ("stall", {"TimeoutError"}),
        ("truncated", {"IncompleteRead"}),
        ("short", {"200"}),
        ("wrong_etag", {"200"}),
        ("flipped", {"200"}),
    ],
)
def test_every_fault_is_the_one_that_was_asked_for(kind: str, outcomes: set[str]) -> None:
    with Echo() as echo, FaultyProxy(echo.url, 1, seed=1, kinds=[kind]) as proxy:
        timeout = 0.3 if kind == "stall" else 30
        paths = [f"/bucket/body{number}" for number in range(6)]
        assert {get(proxy, path, timeout) for path in paths} == outcomes
    assert proxy.faults == {kind: 6}


def test_spoilt_bodies_and_etags_are_near_the_true_ones() -> None:
    def fetch(kind: str) -> tuple[bytes, http.client.HTTPMessage]:
        with FaultyProxy(echo.url, 1, seed=1, kinds=[kind]) as proxy:
            connection = connect(proxy)
            connection.request("GET", "/bucket/body")
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
        return body, answer.headers

    with Echo() as echo:
        body, headers = fetch("flipped")
        assert sum((a ^ b).bit_count() for a, b in zip(body, BODY, strict=True)) == 1
        assert headers["ETag"] == '"echo"'
        body, headers = fetch("short")
        assert BODY.startswith(body)
        assert len(body) < len(BODY)
        assert headers["Content-Length"] == str(len(body))
        body, headers = fetch("wrong_etag")
        assert body == BODY
        assert re.fullmatch('"[0-9a-f]{32}"', headers["ETag"])


def test_a_dribble_goes_on_and_on_at_its_pace() -> None:
    with (
        Echo() as echo,
        FaultyProxy(echo.url, 1, seed=1, kinds=["dribble"], pause=0.05) as proxy,
    ):
        connection = connect(proxy)
        connection.request("GET", "/bucket/body")
        answer = connection.getresponse()
        started = time.monotonic()
        assert answer.read(10) == BODY[:10]
        assert 0.3 < time.monotonic() - started < 5
        connection.close()


def test_faults_hang_on_the_seed_and_on_nothing_else() -> None:
    paths = [f"/bucket/body{number}" for number in range(300)]
    kinds = [*FAULTS[:4], "truncated", "short"]

    def outcomes(seed: int, threads: int) -> tuple[dict[str, str], dict[str, int]]:
        with Echo() as echo, FaultyProxy(echo.url, 0.2, seed, kinds=kinds) as proxy:
            in_order = paths if threads == 1 else paths[::-1]
            with ThreadPoolExecutor(threads) as requests:
                found = requests.map(lambda path: get(proxy, path), in_order)
                return dict(zip(in_order, found, strict=True)), dict(proxy.faults)

    first, faults = outcomes(seed=1, threads=1)
    assert outcomes(seed=1, threads=8) == (first, faults)
    assert outcomes(seed=2, threads=8)[0] != first
    assert set(faults) == set(kinds)
    # Four standard deviations of a binomial distribution about the 60 expected.
    assert 32 <= sum(faults.values()) <= 88
    assert sum(outcome != "whole" for outcome in first.values()) == sum(faults.values())


def test_a_key_is_spoilt_no_more_often_than_asked_for() -> None:
    kinds = ["slow_down", "short"]
    with Echo() as echo, FaultyProxy(echo.url, 1, seed=1, kinds=kinds, times=2) as proxy:
        for path in ("/bucket/body1", "/bucket/body2"):
            found = [get(proxy, path) for _ in range(4)]
            assert "whole" not in found[:2]
            assert found[2:] == ["whole", "whole"]


def test_writes_and_listings_are_spoilt_only_on_demand(s3: Callable[[str], str]) -> None:
    s3("endpoints-spared")
    target = boto3.client("s3").meta.endpoint_url
    once = Config(retries={"total_max_attempts": 1})

    def attempt(proxy: FaultyProxy) -> list[Any]:
        client = boto3.client("s3", endpoint_url=proxy.url, config=once)
        calls = [
            lambda: client.put_object(Bucket="endpoints-spared", Key="a", Body=b"x"),
            lambda: client.list_objects_v2(Bucket="endpoints-spared"),
            lambda: client.head_object(Bucket="endpoints-spared", Key="a"),
        ]
        return [type(call_or_error(call)).__name__ for call in calls]

    def call_or_error(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            return error

    with FaultyProxy(target, 1, seed=1, kinds=["slow_down"]) as proxy:
        assert attempt(proxy) == ["dict", "dict", "dict"]
    with FaultyProxy(target, 1, seed=1, kinds=["slow_down"], writes=True) as proxy:
        assert attempt(proxy) == ["ClientError", "dict", "dict"]
    with FaultyProxy(target, 1, seed=1, kinds=["slow_down"], listings=True) as proxy:
        assert attempt(proxy) == ["dict", "ClientError", "dict"]


def test_a_write_may_be_done_though_its_answer_is_lost(s3: Callable[[str], str]) -> None:
    s3("endpoints-lost")
    direct = boto3.client("s3")
    once = Config(retries={"total_max_attempts": 1})
    with FaultyProxy(direct.meta.endpoint_url, 1, seed=1, kinds=["reset"], writes=True) as proxy:
        client = boto3.client("s3", endpoint_url=proxy.url, config=once)
        for number in range(12):
            with pytest.raises(Exception, match=r"[Cc]onnection"):
                client.put_object(Bucket="endpoints-lost", Key=f"{number}", Body=b"x")
    assert 0 < direct.list_objects_v2(Bucket="endpoints-lost")["KeyCount"] < 12


def test_a_proxy_ends_while_requests_stall() -> None:
    with Echo() as echo:
        started = time.monotonic()
        with FaultyProxy(echo.url, 1, seed=1, kinds=["stall"]) as proxy:
            connection = connect(proxy)
            connection.request("GET", "/bucket/body")
            time.sleep(0.1)
        connection.close()
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("way", "parameters", "code"),
    [
        ("no_conditions", {"IfNoneMatch": "*"}, "NotImplemented"),
        ("conditions_ignored", {"IfNoneMatch": "*"}, ""),
        # boto3 sends them unasked.
        ("no_checksums", {}, "InvalidArgument"),
        ("encryption", {}, "AccessDenied"),
        ("encryption", {"ServerSideEncryption": "AES256"}, "AccessDenied"),
        ("encryption", {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key"}, ""),
        ("requester_pays", {}, "AccessDenied"),
        ("requester_pays", {"RequestPayer": "requester"}, ""),
        ("unsigned", {}, "InvalidAccessKeyId"),
    ],
)
def test_a_store_has_its_ways(
    s3: Callable[[str], str], way: str, parameters: dict[str, str], code: str
) -> None:
    s3("endpoints-ways")
    direct = boto3.client("s3")
    direct.put_object(Bucket="endpoints-ways", Key="key", Body=b"before")
    with PeculiarStore(direct.meta.endpoint_url, way, kms_key="key") as store:
        client = boto3.client("s3", endpoint_url=store.url)
        try:
            client.put_object(Bucket="endpoints-ways", Key="key", Body=b"after", **parameters)
            found = ""
        except ClientError as error:
            found = error.response["Error"]["Code"]
    assert found == code
    assert store.refused == [f"PUT /endpoints-ways/key {code}"] * bool(code)
    kept = direct.get_object(Bucket="endpoints-ways", Key="key")["Body"].read()
    assert kept == (b"before" if code else b"after")


def listing_client(listing: PagedListing) -> Any:
    return boto3.client("s3", endpoint_url=listing.url)


@pytest.mark.parametrize("pattern", ["flat", "nested"])
def test_every_key_is_listed_once_and_in_the_order_of_utf_8(
    aws_environment: None, pattern: str
) -> None:
    with PagedListing(12_345, pattern) as listing:
        pages = list(
            listing_client(listing).get_paginator("list_objects_v2").paginate(Bucket="any")
        )
        keys = [item["Key"] for page in pages for item in page["Contents"]]
        assert [len(page["Contents"]) for page in pages] == [1000] * 12 + [345]
        assert listing.counts == {"ListObjectsV2": 13, "keys": 12_345}
    assert keys == [listing.keys.key(number) for number in range(12_345)]
    assert keys == sorted(set(keys), key=str.encode)
    assert len({item["ETag"] for page in pages for item in page["Contents"]}) == 12_345


# What is asked of both endpoints.
QUERIES = [
    {},
    {"Prefix": "2026 spring/"},
    {"Prefix": "2026 spring/0"},
    {"Prefix": "ét"},
    {"Prefix": "nothing"},
    {"Delimiter": "/"},
    {"Delimiter": "/", "MaxKeys": 3},
    {"Delimiter": "/", "Prefix": "a&b/"},
    {"Delimiter": "/", "Prefix": "z%2F/000000/"},
    {"Delimiter": "jpg"},
    {"StartAfter": "z%2F/000000/000000020.jpg"},
    {"StartAfter": "été/"},
    {"StartAfter": "a&b/000000/000000013.jpg", "Prefix": "a&b/", "MaxKeys": 2},
    {"MaxKeys": 7},
    {"MaxKeys": 0},
    {"EncodingType": "url", "Delimiter": "/", "MaxKeys": 2},
]


@pytest.fixture(scope="module")
def twins(aws_environment: None) -> Iterator[list[Any]]:
    """Clients of two endpoints whose bucket ``twin`` has the same keys."""
    with PagedListing(40, "nested") as listing:
        other = boto3.client("s3")
        other.create_bucket(Bucket="twin")
        for number in range(40):
            other.put_object(Bucket="twin", Key=listing.keys.key(number))
        yield [listing_client(listing), other]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: "-".join(map(str, query.values())))
def test_a_listing_answers_as_another_s3_server_does(
    twins: list[Any], query: dict[str, Any]
) -> None:
    pages = [walk(client, "twin", query) for client in twins]
    assert pages[0] == pages[1]


def walk(client: Any, bucket: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    """All pages of a listing, as far as two endpoints can have them in common."""
    pages, token = [], {}
    while len(pages) < 100:
        page = client.list_objects_v2(Bucket=bucket, **query, **token)
        shared = ("Name", "Prefix", "Delimiter", "MaxKeys", "KeyCount", "IsTruncated")
        pages.append(
            {name: page.get(name, "") for name in shared}
            | {"keys": [item["Key"] for item in page.get("Contents", [])]}
            | {"folders": [item["Prefix"] for item in page.get("CommonPrefixes", [])]}
        )
        if not page["IsTruncated"]:
            return pages
        token = {"ContinuationToken": page["NextContinuationToken"]}
    raise AssertionError("the listing does not end")


def test_a_billion_keys_cost_no_memory_and_the_last_ones_are_found_at_once(
    aws_environment: None,
) -> None:
    with PagedListing(10**9) as listing:
        client = listing_client(listing)
        client.head_bucket(Bucket="any")
        page = client.list_objects_v2(Bucket="any", StartAfter="999999997")
        assert [item["Key"] for item in page["Contents"]] == [
            "999999997.jpg",
            "999999998.jpg",
            "999999999.jpg",
        ]
        assert not page["IsTruncated"]
        assert listing.counts == {"HeadBucket": 1, "ListObjectsV2": 1, "keys": 3}
        assert listing.peak_memory < 100e6


def test_a_listing_can_be_as_slow_as_a_store_far_away(aws_environment: None) -> None:
    with PagedListing(10, latency=0.5) as listing:
        client = listing_client(listing)
        started = time.monotonic()
        with ThreadPoolExecutor(8) as requests:
            list(requests.map(lambda _: client.list_objects_v2(Bucket="any"), range(8)))
        # They wait at the same time.
        assert 0.5 <= time.monotonic() - started < 4

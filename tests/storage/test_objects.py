"""Objects: what arrives, what is tried again, and what an object that cannot be had is told of."""

import asyncio
import hashlib
import os
import pickle
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from segray.storage import objects
from segray.storage.failures import FetchError
from segray.storage.listing import Entry, list_entries
from segray.storage.objects import fetch
from segray.storage.s3 import forget_client
from tests.endpoints import CountingProxy, FaultyProxy
from tests.endpoints.proxy import BODY_FAULTS, FAULTS
from tests.endpoints.server import Head, Server, read_head

CONTENT = bytes(range(256)) * 40
ETAG = hashlib.md5(CONTENT).hexdigest()

KEYS = [
    "a b.jpg",
    "a.jpg?versionId=x",
    "a/../b.jpg",
    "../c.jpg",
    "..",
    "./a.jpg",
    "a//b.jpg",
    "/a.jpg",
    "a%2Fb.jpg",
    "%zz",
    "é猫😀.jpg",
    "a\tb.jpg",
    "a+b&c=d#e.jpg",
    "a;b:c@d!$'()*,[]{}|^`\"<>~\\",
    "s3://bucket/a.jpg",
    "x" * 1024,
]

#: What no message may hold; the tests' environment has the first two as credentials.
SECRETS = ("test-secret", "test-key", "hunter2", "session-secret")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, aws_environment: None) -> Iterator[None]:
    """Short pauses, and a client of the test's own."""
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.01)
    forget_client()
    yield
    forget_client()


class Script(Server):
    """Answers the requests one after the other as it is told, the last answer again and again.

    Attributes:
        requests: the heads that came.
    """

    def __init__(self, *answers: bytes, pause: float = 0.0) -> None:
        """Take what to send; in the pause between each 256 bytes of an answer, seconds pass."""
        self._answers, self._pause = answers, pause
        self.requests: list[Head] = []

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_head(reader):
            self.requests.append(request)
            answer = self._answers[min(len(self.requests), len(self._answers)) - 1]
            step = 256 if self._pause else max(len(answer), 1)
            for start in range(0, len(answer), step):
                writer.write(answer[start : start + step])
                await writer.drain()
                await asyncio.sleep(self._pause)
            if b"Connection: close" in answer:
                return


class Objects(Server):
    """A store of any object, whose content is its path again and again: quicker than a real one."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_head(reader):
            body = self.content(request.start.split(b" ")[1].decode())
            writer.write(answer(body, ETag=f'"{hashlib.md5(body).hexdigest()}"'))
            await writer.drain()

    @staticmethod
    def content(path: str) -> bytes:
        return path.encode() * 500

    def entry(self, path: str) -> Entry:
        """What a listing would say of an object. `path` is ``/bucket/key``."""
        content = self.content(path)
        return Entry(f"s3:/{path}", len(content), hashlib.md5(content).hexdigest())


def answer(body: bytes = CONTENT, status: str = "200 OK", **fields: str) -> bytes:
    """An answer; fields have underscores for the dashes of their names."""
    fields = {"ETag": f'"{ETAG}"', "Content_Length": str(len(body))} | fields
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([*lines, "", ""]).encode() + body


def refusal(status: str, code: str) -> bytes:
    text = f"<Error><Code>{code}</Code><Message>test-secret hunter2\n</Message></Error>"
    return answer(text.encode(), status, ETag="", Content_Type="application/xml")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], Server]:
    """Call it with a server that listens, to make it the S3 of this test."""

    def use_server(server: Server) -> Server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        forget_client()
        return server

    return use_server


def failure(
    uri: str = "s3://bucket/a.jpg",
    size: int | None = len(CONTENT),
    etag: str | None = ETAG,
    retries: list[str] | None = None,
) -> FetchError:
    """How the fetching of an object ends that cannot be had."""
    with pytest.raises(FetchError) as caught:
        fetch(uri, size, etag, None if retries is None else retries.append)
    message = caught.value.message
    assert str(caught.value) == message
    assert message.splitlines() == [message]
    assert len(message) < 400
    assert not [secret for secret in SECRETS if secret in message]
    return caught.value


@pytest.fixture
def folder(s3: Callable[[str], str], tmp_path: Path) -> str:
    """The URI of a new bucket."""
    return s3("objects-" + tmp_path.name.replace("_", "-").lower()[-50:].strip("-"))


def put(folder: str, key: str, content: bytes) -> Entry:
    """Store an object, and what a listing says of it."""
    bucket = folder.removeprefix("s3://")
    stored = boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)
    return Entry(f"{folder}/{key}", len(content), stored["ETag"].strip('"'))


@pytest.mark.parametrize("key", KEYS, ids=lambda key: ascii(key)[:20])
def test_an_object_of_any_name_is_had_with_one_get_and_nothing_else(
    folder: str, use: Callable[[Server], Server], s3_endpoint: str, key: str
) -> None:
    entry = put(folder, key, CONTENT)
    with CountingProxy(s3_endpoint) as proxy:
        use(proxy)
        assert fetch(entry.uri, entry.size, entry.etag) == CONTENT
    assert proxy.requests == {"GET": 1}
    assert proxy.gets == {f"{folder.removeprefix('s3://')}/{key}": 1}


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("a\nb\r.jpg", "/bucket/a%0Ab%0D.jpg"),
        ("\x01\x7f", "/bucket/%01%7F"),
        ("a/./../b//", "/bucket/a/./../b//"),
        ("a?versionId=1#x", "/bucket/a%3FversionId%3D1%23x"),
        ("a%2F+ b", "/bucket/a%252F%2B%20b"),
    ],
)
def test_a_key_reaches_the_store_as_it_is(
    use: Callable[[Server], Server], key: str, target: str
) -> None:
    with Script(answer()) as server:
        use(server)
        assert fetch(f"s3://bucket/{key}", len(CONTENT), ETAG) == CONTENT
        assert server.requests[0].start.decode() == f"GET {target} HTTP/1.1"


def test_what_a_listing_gives_can_be_fetched(folder: str) -> None:
    contents = {"a.jpg": CONTENT, "b/empty.jpg": b"", "b/large.jpg": CONTENT * 300}
    for key, content in contents.items():
        put(folder, key, content)
    entries = list_entries(folder)
    assert [fetch(entry.uri, entry.size, entry.etag) for entry in entries] == [*contents.values()]
    assert [fetch(entry.uri) for entry in entries] == [*contents.values()]


def test_many_threads_share_a_few_connections(
    folder: str, use: Callable[[Server], Server], s3_endpoint: str
) -> None:
    contents = [b"%d" % number * 1000 for number in range(20)]
    entries = [put(folder, f"{number}.jpg", content) for number, content in enumerate(contents)]
    with CountingProxy(s3_endpoint) as proxy:
        use(proxy)
        with ThreadPoolExecutor(32) as requests:
            found = list(requests.map(lambda entry: fetch(entry.uri, entry.size), entries * 6))
    assert found == contents * 6
    assert proxy.requests == {"GET": 120}
    assert set(proxy.gets.values()) == {6}
    assert proxy.connections <= 32
    assert proxy.most_at_once > 4


@pytest.mark.parametrize("kind", FAULTS + BODY_FAULTS)
def test_a_fault_that_passes_is_passed_over(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind in ("stall", "dribble"):
        monkeypatch.setattr(objects, "READ_SECONDS", 0.5)
    retries: list[str] = []
    with (
        Objects() as store,
        FaultyProxy(store.url, 1, seed=3, kinds=[kind], times=2, pause=0.2) as proxy,
    ):
        use(proxy)
        for entry in [store.entry(f"/bucket/{number}.jpg") for number in range(3)]:
            content = fetch(entry.uri, entry.size, entry.etag, retries.append)
            assert content == store.content(entry.uri.removeprefix("s3:/"))
    assert proxy.faults == {kind: 6}
    assert set(proxy.gets.values()) == {3}
    expected = {
        "slow_down": {"Throttled"},
        "internal_error": {"StoreFailed"},
        "expired_token": {"CredentialsExpired"},
        "reset": {"ConnectionFailed"},
        "stall": {"TimedOut"},
        "truncated": {"Truncated"},
        "short": {"Truncated"},
        "wrong_etag": {"Changed"},
        "flipped": {"Corrupted"},
        "dribble": {"TimedOut"},
    }
    assert set(retries) <= expected[kind] | {"ConnectionFailed"}
    assert set(retries) & expected[kind]
    assert len(retries) == 6


def test_nothing_is_lost_where_one_answer_in_three_is_spoilt(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "ATTEMPTS", 12)
    monkeypatch.setattr(objects, "READ_SECONDS", 1.0)
    paths = [f"/bucket/{number}.jpg" for number in range(200)]
    retries: list[str] = []
    with Objects() as store, FaultyProxy(store.url, 0.33, seed=5) as proxy:
        use(proxy)
        entries = [store.entry(path) for path in paths]
        with ThreadPoolExecutor(16) as requests:
            found = requests.map(
                lambda entry: fetch(entry.uri, entry.size, entry.etag, retries.append), entries
            )
            assert list(found) == [store.content(path) for path in paths]
    assert set(proxy.faults) == {*FAULTS, *BODY_FAULTS}
    assert len(retries) == sum(proxy.faults.values()) == proxy.requests["GET"] - 200


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("503 Slow Down", "SlowDown", "Throttled"),
        ("429 Too Many Requests", "TooManyRequests", "Throttled"),
        ("500 Internal Server Error", "InternalError", "StoreFailed"),
        ("502 Bad Gateway", "BadGateway", "StoreFailed"),
        ("504 Gateway Timeout", "GatewayTimeout", "StoreFailed"),
        ("400 Bad Request", "RequestTimeout", "StoreFailed"),
        ("400 Bad Request", "ExpiredToken", "CredentialsExpired"),
        ("403 Forbidden", "ExpiredToken", "CredentialsExpired"),
        ("403 Forbidden", "RequestTimeTooSkewed", "ClockSkewed"),
    ],
)
def test_what_may_pass_is_tried_a_limited_number_of_times(
    use: Callable[[Server], Server], status: str, code: str, kind: str
) -> None:
    retries: list[str] = []
    with Script(refusal(status, code)) as server:
        use(server)
        error = failure(retries=retries)
    assert error.kind == kind
    assert f"{code}, HTTP {status[:3]}" in error.message
    assert re.search(r"; given up at attempt 6, after \d s$", error.message)
    assert retries == [kind] * 5
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        ("404 Not Found", "NoSuchKey", "NotFound", "no such bucket or key"),
        ("404 Not Found", "NoSuchBucket", "NotFound", "no such bucket or key"),
        ("403 Forbidden", "AccessDenied", "Forbidden", "check the permissions"),
        ("403 Forbidden", "SignatureDoesNotMatch", "Forbidden", "check the permissions"),
        ("403 Forbidden", "InvalidObjectState", "Archived", "in an archive"),
        ("405 Method Not Allowed", "MethodNotAllowed", "Refused", "refuses"),
        ("400 Bad Request", "InvalidBucketName", "Refused", "refuses"),
    ],
)
def test_what_cannot_pass_is_told_at_once(
    use: Callable[[Server], Server], status: str, code: str, kind: str, words: str
) -> None:
    with Script(refusal(status, code)) as server:
        use(server)
        error = failure()
    assert error.kind == kind
    assert words in error.message
    assert code in error.message
    assert len(server.requests) == 1


def test_errors_without_the_store_s_own_words_are_understood(
    use: Callable[[Server], Server],
) -> None:
    html = b"<html><hr>hunter2 & test-key"
    page = answer(html, "503 Service Unavailable", ETag="")
    with Script(page, answer(b"", "500 Oops", ETag=""), b"SSH-2.0-x\r\n\r\n", answer()) as server:
        use(server)
        assert fetch("s3://bucket/a.jpg", len(CONTENT), ETAG) == CONTENT
    with Script(page) as server:
        use(server)
        assert failure().kind == "Throttled"


def test_a_missing_object_and_a_forbidden_one(folder: str) -> None:
    assert failure(f"{folder}/nothing.jpg").kind == "NotFound"
    assert failure("s3://there-is-no-such-bucket/a.jpg").kind == "NotFound"
    assert failure(folder).kind == "NotFound"
    assert failure(folder + "/").kind == "NotFound"


def test_the_region_is_that_of_the_environment(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    with Script(answer()) as server:
        use(server)
        fetch("s3://bucket/a.jpg", len(CONTENT), ETAG)
        assert b"/ap-south-1/s3/" in server.requests[0].get(b"authorization")


def test_another_region_is_found(use: Callable[[Server], Server]) -> None:
    text = b"<Error><Code>PermanentRedirect</Code></Error>"
    elsewhere = answer(text, "301 Moved Permanently", ETag="", x_amz_bucket_region="eu-central-1")
    with Script(elsewhere, answer()) as server:
        use(server)
        assert fetch("s3://bucket/a.jpg", len(CONTENT), ETAG) == CONTENT
        assert fetch("s3://bucket/b.jpg", len(CONTENT), ETAG) == CONTENT
    regions = [head.get(b"authorization").split(b"/")[2] for head in server.requests]
    assert regions == [b"us-east-1", b"eu-central-1", b"eu-central-1"]


def test_expired_credentials_are_looked_up_anew(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "RENEWAL_SECONDS", 0.0)
    renewed: list[str] = []

    def renew(kind: str) -> None:
        renewed.append(kind)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-today")

    with Script(refusal("400 Bad Request", "ExpiredToken"), answer()) as server:
        use(server)
        assert fetch("s3://bucket/a.jpg", len(CONTENT), ETAG, renew) == CONTENT
    assert renewed == ["CredentialsExpired"]
    keys = [re.findall(b"Credential=([^/]*)", head.to_bytes())[0] for head in server.requests]
    assert keys == [b"test-key", b"key-of-today"]


def test_a_client_is_not_replaced_again_and_again(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a tenth of a second and more to make one, and every thread meets the refusal."""
    monkeypatch.setattr(objects, "RENEWAL_SECONDS", 60.0)
    with Script(refusal("400 Bad Request", "ExpiredToken")) as server:
        use(server)
        with pytest.raises(FetchError):
            fetch(
                "s3://bucket/a.jpg",
                on_retry=lambda _: monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-today"),
            )
    keys = {re.findall(b"Credential=([^/]*)", head.to_bytes())[0] for head in server.requests}
    assert keys == {b"test-key"}


def test_credentials_that_are_not_found_at_first_are_found_later(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(objects, "RENEWAL_SECONDS", 0.0)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    def log_in(kind: str) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-today")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "session-secret")

    with Script(answer()) as server:
        use(server)
        error = failure()
        assert error.kind == "NoCredentials"
        assert "set AWS_ACCESS_KEY_ID" in error.message
        assert fetch("s3://bucket/a.jpg", len(CONTENT), ETAG, log_in) == CONTENT


@pytest.mark.parametrize("uri", ["https://user:hunter2@host/a.jpg", "gs://b/a.jpg", "S3://b/a"])
def test_a_uri_of_another_kind_is_told_from_a_bucket(uri: str) -> None:
    error = failure(uri)
    assert error.kind == "Unsupported"
    assert error.message == "is neither a path nor s3://bucket/key"


def test_an_endpoint_that_is_no_url_or_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "name:hunter2@localhost")
    forget_client()
    assert "AWS_ENDPOINT_URL is no URL" in failure().message
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and never listens
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        forget_client()
        error = failure()
    assert error.kind == "ConnectionFailed"
    assert "the endpoint in AWS_ENDPOINT_URL does not answer" in error.message


def test_a_password_in_the_endpoint_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with Script(b"no HTTP\r\n\r\n") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url.replace("//", "//user:hunter2@"))
        forget_client()
        failure()
    failure()  # now that nothing listens there


@pytest.mark.parametrize(
    ("sent", "pause"),
    [
        (b"", 0.0),
        (answer()[:60], 0.0),
        (answer()[:5000], 0.0),
        (answer(CONTENT * 100), 0.2),
    ],
    ids=["nothing", "half a head", "half a body", "a dribble"],
)
def test_a_store_that_stalls_for_ever_ends_as_an_error(
    use: Callable[[Server], Server],
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
    pause: float,
) -> None:
    """The dribble never pauses for as long as the time-out."""
    monkeypatch.setattr(objects, "READ_SECONDS", 0.5)
    monkeypatch.setattr(objects, "TOTAL_SECONDS", 1.5)
    with Script(answer(CONTENT[:1], ETag=""), sent, pause=pause) as server:
        use(server)
        fetch("s3://bucket/a.jpg")  # makes the client
        started = time.monotonic()
        error = failure(size=None, etag=None)
        seconds = time.monotonic() - started
    assert error.kind == "TimedOut"
    assert seconds < 1.5 + 3
    assert 2 <= len(server.requests) - 1 <= 6


def test_no_attempt_begins_after_the_total_time(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "TOTAL_SECONDS", 0.0)
    with Script(refusal("503 Slow Down", "SlowDown")) as server:
        use(server)
        assert "; given up at attempt 1, after " in failure().message
    assert len(server.requests) == 1


def test_a_slow_store_that_goes_on_sending_is_waited_for(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "READ_SECONDS", 0.3)
    monkeypatch.setattr(objects, "SLOWEST", 1000)
    with Script(answer(), pause=0.03) as server:
        use(server)
        started = time.monotonic()
        assert fetch("s3://bucket/a.jpg", len(CONTENT), ETAG) == CONTENT
        assert time.monotonic() - started > 2 * objects.READ_SECONDS
    assert len(server.requests) == 1


def test_a_changed_object_is_not_taken_for_the_listed_one(
    folder: str, use: Callable[[Server], Server], s3_endpoint: str
) -> None:
    entry = put(folder, "a.jpg", CONTENT)
    put(folder, "a.jpg", CONTENT[::-1])
    with CountingProxy(s3_endpoint) as proxy:
        use(proxy)
        for etag in (entry.etag, None):
            size = entry.size if etag else entry.size - 1
            error = failure(entry.uri, size, etag)
            assert error.kind == "Changed"
            assert "has changed since it was listed; the next run takes it up" in error.message
    # Asked twice each time: an answer that is damaged is not so twice in the same way.
    assert proxy.requests == {"GET": 4}


def test_etags_are_compared_without_their_marks(folder: str) -> None:
    entry = put(folder, "a.jpg", CONTENT)
    for etag in (f'"{entry.etag}"', f'W/"{entry.etag}"', "", None):
        assert fetch(entry.uri, entry.size, etag) == CONTENT


def test_a_body_that_is_always_short_is_damaged_and_not_changed(
    use: Callable[[Server], Server],
) -> None:
    with Script(answer(CONTENT[:5000])) as server:
        use(server)
        error = failure()
    assert error.kind == "Truncated"
    assert "the store sent 5000 of 10240 bytes" in error.message
    with Script(answer(CONTENT[:5000], Content_Length="10240", Connection="close")) as server:
        use(server)
        assert failure(size=None, etag=None).kind == "Truncated"


def test_a_body_of_unknown_length_is_checked_too(use: Callable[[Server], Server]) -> None:
    def chunked(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
        head = answer(b"", Content_Length="", Transfer_Encoding="chunked", Connection="close")
        return head + b"%x\r\n%b\r\n" % (len(body), body) + end

    for cut in (chunked(CONTENT[:-1]), chunked(CONTENT, end=b""), answer(CONTENT[:-1])):
        with Script(cut, chunked(CONTENT)) as server:
            use(server)
            retries: list[str] = []
            assert fetch("s3://bucket/a.jpg", len(CONTENT), ETAG, retries.append) == CONTENT
            assert len(retries) == 1


def test_etags_that_are_no_md5_are_believed_after_the_first(
    use: Callable[[Server], Server],
) -> None:
    etag = hashlib.md5(b"of something else").hexdigest()
    with Script(answer(ETag=f'"{etag}"')) as server:
        use(server)
        for _ in range(3):
            assert fetch("s3://another-etag/a.jpg", len(CONTENT), etag) == CONTENT
    # The first object twice, to see that it is the same twice.
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"x_amz_server_side_encryption": "aws:kms"},
        {"x_amz_server_side_encryption": "aws:kms:dsse"},
        {"x_amz_server_side_encryption_customer_algorithm": "AES256"},
    ],
    ids=lambda fields: "-".join(fields.values()),
)
def test_etags_of_encrypted_objects_are_not_taken_for_md5(
    use: Callable[[Server], Server], fields: dict[str, str]
) -> None:
    etag = hashlib.md5(b"of the encrypted object").hexdigest()
    with Script(answer(ETag=f'"{etag}"', **fields)) as server:
        use(server)
        assert fetch("s3://encrypted/a.jpg", len(CONTENT), etag) == CONTENT
    assert len(server.requests) == 1


def test_a_damaged_body_is_found_without_a_listed_etag(use: Callable[[Server], Server]) -> None:
    damaged = CONTENT[:-1] + b"x"
    with Script(answer(damaged, x_amz_server_side_encryption="AES256"), answer()) as server:
        use(server)
        assert fetch("s3://bucket/a.jpg") == CONTENT


def test_several_parts_have_no_md5(use: Callable[[Server], Server]) -> None:
    etag = "9bb58f26192e4ba00f01e2e7b136bbd8-2"
    with Script(answer(ETag=f'"{etag}"')) as server:
        use(server)
        assert fetch("s3://bucket/a.jpg", len(CONTENT), etag) == CONTENT
    assert len(server.requests) == 1


def test_what_is_too_large_is_not_asked_for_and_not_read_on(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(objects, "MAX_FILE_BYTES", 10_000)
    unknown = answer(Content_Length="", Connection="close")
    with Script(answer(), unknown) as server:
        use(server)
        error = failure()
        assert error.kind == "TooLarge"
        assert error.message == "is 10240 bytes large, over the limit of 10000"
        assert len(server.requests) == 0
        assert failure(size=None).kind == "TooLarge"
        assert failure(size=None).kind == "TooLarge"
        assert len(server.requests) == 2
    (tmp_path / "a.jpg").write_bytes(CONTENT)
    assert failure(str(tmp_path / "a.jpg"), None, None).kind == "TooLarge"


def test_an_error_survives_the_way_from_process_to_process() -> None:
    error = failure("s3://bucket")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.kind, copy.message, str(copy)) == (error.kind, error.message, error.message)


def test_pauses_grow_and_differ(
    use: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(objects, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(objects, "ATTEMPTS", 5)
    pauses = []
    with Script(refusal("503 Slow Down", "SlowDown")) as server:
        use(server)
        failure()
        for _ in range(8):
            times: list[float] = []
            with pytest.raises(FetchError):
                fetch("s3://bucket/a", on_retry=lambda _, t=times: t.append(time.monotonic()))
            ends = [*times[1:], time.monotonic()]
            pauses.append([end - begin for begin, end in zip(times, ends, strict=True)])
    means = [sum(column) / len(column) for column in zip(*pauses, strict=True)]
    assert means[0] < means[2]
    # Drawn from 0 to 0.2 s, eight of them lie closer together than 0.02 s in one of ten million.
    last = [row[-1] for row in pauses]
    assert max(last) - min(last) > 0.02


def test_a_file_is_read_as_it_was_listed(tmp_path: Path) -> None:
    contents = {"a.jpg": CONTENT, "b\nc.jpg": b"", "é?%2F.jpg": b"x"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for entry in list_entries(str(tmp_path)):
        content = contents[Path(entry.uri).name]
        assert fetch(entry.uri, entry.size, entry.etag) == content
        assert fetch(entry.uri) == content


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "same again"])
def test_a_file_that_has_changed_since_it_was_listed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(CONTENT)
    os.utime(path, ns=(1, 1_000_000_001))
    (entry,) = list_entries(str(tmp_path))
    contents = {"longer": CONTENT + b"x", "shorter": CONTENT[1:], "other": CONTENT[::-1]}
    path.write_bytes(contents.get(change, CONTENT))
    if change in ("longer", "shorter"):
        os.utime(path, ns=(1, 1_000_000_001))
    error = failure(entry.uri, entry.size, entry.etag)
    assert error.kind == "Changed"
    assert "has changed since it was listed" in error.message


def test_files_that_cannot_be_read(users_folder: Path) -> None:
    (users_folder / "shut.jpg").write_bytes(b"x")
    (users_folder / "shut.jpg").chmod(0)
    os.mkfifo(users_folder / "pipe")
    kinds = {
        users_folder / "nothing.jpg": "NotFound",
        users_folder / "shut.jpg" / "below.jpg": "NotFound",
        users_folder / "shut.jpg": "Forbidden",
        users_folder / "pipe": "NotAFile",
        users_folder: "NotAFile",
        Path("/dev/zero"): "NotAFile",
    }
    assert {path: failure(str(path), None, None).kind for path in kinds} == kinds
    assert failure("/a\0b", None, None).kind == "ValueError"

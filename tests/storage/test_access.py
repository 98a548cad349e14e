"""Access: buckets that want to hear more than a signature, and what is said where they refuse."""

import socket
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from segray.errors import InputError
from segray.export.stream import write_stream
from segray.storage.access import S3Access
from segray.storage.failures import FetchError
from segray.storage.files import child_names, read_bytes, remove, write_bytes
from segray.storage.inventory import open_inventory
from segray.storage.listing import list_entries
from segray.storage.lock import hold_lock
from segray.storage.objects import fetch
from segray.storage.uri import exists, file_system
from tests.endpoints import PeculiarStore
from tests.endpoints.server import Head
from tests.endpoints.stores import asking, forget_clients

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
# More than a part of an upload, so that s3fs makes one of several.
LARGE = bytes(range(256)) * (11 << 12)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five MiB are the least that S3 takes."""
    monkeypatch.setattr("segray.export.stream._PART_BYTES", 5 << 20)


def use_all(bucket: str) -> None:
    """Every kind of request that segray makes."""
    write_bytes(f"{bucket}/a/one.txt", b"one")
    with write_stream(f"{bucket}/a/large.bin") as file:
        file.write(LARGE)
    with write_stream(f"{bucket}/a/small.bin") as file:
        file.write(b"small")
    assert read_bytes(f"{bucket}/a/one.txt") == fetch(f"{bucket}/a/one.txt", 3) == b"one"
    assert read_bytes(f"{bucket}/a/large.bin") == LARGE
    write_bytes(f"{bucket}/table.csv", b"uri\nx.jpg\n")
    assert len(open_inventory(f"{bucket}/table.csv")) == 1
    assert child_names(f"{bucket}/a") == ["large.bin", "one.txt", "small.bin"]
    assert len(list_entries(f"{bucket}/a")) == 3
    assert exists(bucket)
    assert exists(f"{bucket}/a")
    assert exists(f"{bucket}/a/one.txt")
    assert not exists(f"{bucket}/b")
    with hold_lock(f"{bucket}/a"):
        pass
    for name in child_names(f"{bucket}/a"):
        remove(f"{bucket}/a/{name}")
    assert child_names(f"{bucket}/a") == []


@pytest.mark.parametrize(
    ("ways", "access"),
    [
        (["requester_pays"], {"s3_requester_pays": True}),
        (["unsigned"], {"s3_unsigned": True}),
        (["encryption"], {"s3_sse": "AES256"}),
        (["encryption"], {"s3_sse": "aws:kms"}),
        (["encryption"], {"s3_sse": KEY}),
        (["encryption", "requester_pays"], {"s3_sse": KEY, "s3_requester_pays": True}),
    ],
)
def test_a_bucket_is_asked_as_it_wants_with_every_request(
    s3: Callable[[str], str], s3_endpoint: str, ways: list[str], access: dict[str, object]
) -> None:
    bucket = s3("access-" + "-".join(ways).replace("_", "-"))
    key = KEY if access.get("s3_sse") == KEY else ""
    with PeculiarStore(s3_endpoint, *ways, kms_key=key) as store:
        with asking(store.url, **access):
            use_all(bucket)
            write_bytes(f"{bucket}/kept.txt", b"kept")
        assert store.refused == []
    kept = boto3.client("s3").head_object(Bucket=bucket.removeprefix("s3://"), Key="kept.txt")
    algorithm = access.get("s3_sse", "") or None
    assert kept.get("ServerSideEncryption") == ("aws:kms" if algorithm == KEY else algorithm)
    assert kept.get("SSEKMSKeyId", "") == key


def test_what_s3_demands_a_checksum_for_still_has_one(s3: Callable[[str], str]) -> None:
    """Segray makes no such request, but Ray Train may clear a folder: many keys at once."""
    bucket = s3("checksum-demanded")
    for name in "abc":
        write_bytes(f"{bucket}/folder/{name}", b"")
    forget_clients()
    file_system(bucket).rm(f"{bucket}/folder", recursive=True)
    assert child_names(bucket) == []


def test_a_store_that_refuses_new_checksums_is_sent_none(
    s3: Callable[[str], str], s3_endpoint: str
) -> None:
    bucket = s3("access-no-checksums")
    with PeculiarStore(s3_endpoint, "no_checksums") as store:
        with asking(store.url):
            use_all(bucket)
        assert store.refused == []


@pytest.mark.parametrize(
    ("way", "flag"),
    [
        ("requester_pays", "--s3-requester-pays"),
        ("unsigned", "--s3-unsigned"),
        ("encryption", "--s3-sse"),
    ],
)
def test_a_store_that_refuses_is_explained_with_the_flag(
    s3: Callable[[str], str], s3_endpoint: str, way: str, flag: str
) -> None:
    bucket = s3("refused-" + way.replace("_", "-"))
    write_bytes(f"{bucket}/a.txt", b"a")

    def stream(size: int) -> None:
        with write_stream(f"{bucket}/b.txt") as file:
            file.write(LARGE[:size])

    def lock() -> None:
        with hold_lock(bucket):
            pass

    actions: list[Callable[[], object]] = [
        lambda: write_bytes(f"{bucket}/b.txt", b"b"),
        lambda: stream(1),
        lambda: stream(len(LARGE)),
        lock,
    ]
    if way != "encryption":
        actions += [
            lambda: read_bytes(f"{bucket}/a.txt"),
            lambda: fetch(f"{bucket}/a.txt"),
            lambda: list_entries(bucket),
            lambda: child_names(bucket),
            lambda: exists(bucket),
            lambda: remove(f"{bucket}/a.txt"),
        ]
    with PeculiarStore(s3_endpoint, way) as store, asking(store.url):
        for number, action in enumerate(actions):
            with pytest.raises((InputError, FetchError)) as refusal:
                action()
            message = str(refusal.value)
            assert flag in message, (number, message)
            assert len(message.splitlines()) == 1
            assert "test-key" not in message
            if number >= 4:
                assert "--s3-sse" not in message  # which concerns writes alone


class _RegionalStore(PeculiarStore):
    """A store that refuses signatures for another region than eu-south-2."""

    def _refusal(self, request: Head, method: bytes) -> tuple[bytes, bytes, bytes] | None:
        if b"/eu-south-2/s3/" in request.get(b"authorization"):
            return None
        return b"403 Forbidden", b"SignatureDoesNotMatch", b"The region is another one"


def test_every_request_is_signed_for_the_region_of_the_environment(
    s3: Callable[[str], str], s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3("access-region")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-south-2")
    with _RegionalStore(s3_endpoint) as store:
        with asking(store.url):
            use_all(bucket)
        assert store.refused == []


def test_an_access_point_is_used_by_its_arn(
    s3: Callable[[str], str], s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An access point has a host of its own, which the endpoint takes for a bucket's."""
    s3("name-123456789012")
    look_up = socket.getaddrinfo

    def look_up_here(host: str, *others: Any, **settings: Any) -> Any:
        name = "127.0.0.1" if str(host).endswith("localhost") else host
        return look_up(name, *others, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint.replace("127.0.0.1", "localhost"))
    forget_clients()
    try:
        use_all("s3://arn:aws:s3:us-east-1:123456789012:accesspoint/name")
        use_all("s3://arn:aws:s3:us-east-1:123456789012:accesspoint:name/folder")
    finally:
        forget_clients()


def test_without_credentials_a_public_bucket_is_thought_of(
    s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3("no-credentials")
    monkeypatch.setattr("segray.storage.objects.FIRST_PAUSE", 0.01)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    forget_clients()
    try:
        with pytest.raises(InputError, match=r"no AWS credentials found.*--s3-unsigned"):
            child_names(bucket)
        monkeypatch.setenv("SEGRAY_S3_UNSIGNED", "1")
        forget_clients()
        assert child_names(bucket) == []
    finally:
        forget_clients()


def test_flags_that_are_not_given_leave_the_environment_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEGRAY_S3_SSE", "AES256")
    monkeypatch.setenv("SEGRAY_S3_UNSIGNED", "0")
    monkeypatch.setenv("SEGRAY_S3_REQUESTER_PAYS", "")
    S3Access(s3_requester_pays=True).set_environment()
    assert S3Access.of_environment() == S3Access(True, False, "AES256")

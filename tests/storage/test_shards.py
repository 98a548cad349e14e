"""Listings in parts: together they are the whole listing, however keys are spread."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import boto3
import pytest

from segray.storage.listing import Shard, list_pages, split_listing
from segray.storage.s3 import forget_client


@pytest.fixture
def paged(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """A bucket of made-up keys that lists itself like S3 does; see tests/endpoints."""
    count, pattern = request.param
    command = [sys.executable, "-m", "tests.endpoints", "--count", str(count), "--pattern", pattern]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.stdout.readline().strip())
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        forget_client()
        yield
        forget_client()
        server.stdin.close()


def uris(shards: list[Shard]) -> list[str]:
    return [entry.uri for shard in shards for page in list_pages(shard) for entry in page.entries]


@pytest.mark.parametrize("paged", [(20_000, "flat"), (20_000, "nested")], indirect=True)
@pytest.mark.usefixtures("paged")
def test_the_parts_of_a_large_bucket_cover_it_once_and_in_order() -> None:
    shards = split_listing("s3://bucket", 16)
    assert 16 <= len(shards) <= 200
    found = uris(shards)
    assert found == uris([Shard("s3://bucket")])
    assert len(found) == len(set(found)) == 20_000
    sizes = [len(uris([shard])) for shard in shards]
    assert max(sizes) <= 20_000 / 4


@pytest.mark.parametrize(
    "keys",
    [
        ["a", "a/", "a/b", "a0", "aa", "ab/c/d", "é", "日本/1", "\U0001f408", "z\U0010ffff"],
        [f"same/long/beginning/{number:03}" for number in range(40)],
        [f"{chr(number)}{other}" for number in range(0x4E00, 0x4E20) for other in "ab"],
    ],
)
def test_parts_cover_awkward_keys_once(
    s3: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[str]
) -> None:
    monkeypatch.setattr("segray.storage.listing._PAGE", 1)  # as if this were a large bucket
    bucket = s3(f"shards-{tmp_path.name}".replace("_", "-").lower()[:60])
    for key in keys:
        boto3.client("s3").put_object(Bucket=bucket[5:], Key=f"in/{key}", Body=b"")
    shards = split_listing(f"{bucket}/in", 8)
    assert len(shards) > 1
    assert all(one.upto == other.after for one, other in pairwise(shards))
    expected = sorted(f"{bucket}/in/{key}" for key in keys if not key.endswith("/"))
    assert uris(shards) == expected


def test_a_small_bucket_and_a_folder_stay_whole(s3: Callable[[str], str], tmp_path: Path) -> None:
    bucket = s3("small-shards")
    boto3.client("s3").put_object(Bucket=bucket[5:], Key="a.jpg", Body=b"")
    assert split_listing(bucket, 16) == [Shard(bucket)]
    assert split_listing(str(tmp_path), 16) == [Shard(str(tmp_path))]

"""Ranges: what is read of a file is what is in it, wherever it lies and whatever fails."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from segray.errors import InputError
from segray.storage import objects
from segray.storage.files import write_bytes
from segray.storage.ranges import ObjectFile, open_ranges, open_stream
from tests.endpoints import CountingProxy, FaultyProxy
from tests.endpoints.stores import asking

CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture(scope="module")
def uri(aws_environment: None) -> str:
    boto3.client("s3").create_bucket(Bucket="ranges")
    write_bytes("s3://ranges/a file.bin", CONTENT)
    return "s3://ranges/a file.bin"


@pytest.mark.parametrize("opened", [open_ranges, open_stream])
@pytest.mark.parametrize("kind", ["local", "s3"])
def test_any_part_is_that_of_the_file(
    opened: Callable, kind: str, uri: str, tmp_path: Path
) -> None:
    if kind == "local":
        uri = str(tmp_path / "a file.bin")
        Path(uri).write_bytes(CONTENT)
    with opened(uri) as file:
        assert file.read(10) == CONTENT[:10]
        assert file.tell() == 10
        for start, length in ((100, 5), (299_990, 100), (300_000, 1), (200_000, 70_000), (0, 7)):
            file.seek(start)
            assert file.read(length) == CONTENT[start : start + length]
        assert file.seek(-4, io.SEEK_END) == 299_996
        assert file.read() == CONTENT[-4:]
        file.seek(0)
        assert file.read() == CONTENT


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1])
def test_files_about_as_long_as_what_comes_at_once(uri: str, size: int) -> None:
    write_bytes("s3://ranges/other", CONTENT[:size])
    with ObjectFile("s3://ranges/other") as file:
        assert file.read() == CONTENT[:size]
        file.seek(max(0, size - 3))
        assert file.read() == CONTENT[max(0, size - 3) : size]


def test_parts_that_are_not_read_are_not_fetched(uri: str, s3_endpoint: str) -> None:
    with CountingProxy(s3_endpoint) as proxy, asking(proxy.url):
        with ObjectFile(uri) as file:
            file.seek(-30_000, io.SEEK_END)
            assert file.read(8) == CONTENT[-30_000:-29_992]
            assert dict(proxy.requests) == {"GET": 1}
            file.seek(5)
            assert file.read(8) == CONTENT[5:13]
        assert dict(proxy.requests) == {"GET": 2}


def test_a_store_that_fails_is_asked_again(
    uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(objects, "READ_SECONDS", 1.0)
    # A flipped bit is found by the checksums of a Parquet file's pages, and not here.
    kinds = ("slow_down", "internal_error", "expired_token", "reset", "truncated", "short")
    with FaultyProxy(s3_endpoint, 0.4, seed=1, kinds=kinds) as proxy, asking(proxy.url):
        with ObjectFile(uri) as file:
            for start in range(0, 200_000, 10_000):
                file.seek(start)
                assert file.read(100) == CONTENT[start : start + 100]
        assert sum(proxy.faults.values()) > 5


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.01)
    write_bytes("s3://ranges/changing", CONTENT)
    with ObjectFile("s3://ranges/changing") as file:
        assert file.read(10) == CONTENT[:10]
        write_bytes("s3://ranges/changing", CONTENT[::-1])
        with pytest.raises(InputError, match=r"changing: has changed while it was read: run again"):
            file.read(10)


def test_what_is_not_there_is_named(uri: str) -> None:
    with pytest.raises(InputError, match="cannot read s3://ranges/lost: no such bucket or key"):
        ObjectFile("s3://ranges/lost")

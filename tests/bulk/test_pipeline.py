"""The pipeline: how much it holds, and how it is given up."""

import asyncio
import socket
import threading
import time
from pathlib import Path

import pytest

from segray.bulk import writer
from segray.bulk.pipeline import Pipeline, PipelineConfig
from segray.bulk.tally import Tally
from segray.errors import InputError
from segray.model.bundle import ONNX, open_bundle
from segray.model.predictor import load_predictor
from segray.storage import objects
from segray.storage.listing import Entry
from tests.endpoints.server import Head, Server, read_head
from tests.endpoints.stores import asking
from tests.support import draw_picture, encode


def make_pipeline(bundle_uri: str, output: Path) -> Pipeline:
    bundle = open_bundle(bundle_uri, [ONNX])
    config = PipelineConfig(bundle, str(output), "original", 8, 2)
    return Pipeline(config, load_predictor(bundle, "onnx", 2), Tally())


class _Store(Server):
    """Objects of 40 MB of zeros each, sent in an instant."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        piece = bytes(100_000)
        while await read_head(reader):
            writer.write(Head(b"HTTP/1.1 200 OK", [(b"Content-Length", b"40000000")]).to_bytes())
            for _ in range(400):
                writer.write(piece)
                await writer.drain()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return monkeypatch


def resident() -> int:
    """Bytes that this process holds in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_files_of_unknown_size_do_not_fill_the_memory(
    bundle_uri: str, tmp_path: Path, credentials: pytest.MonkeyPatch
) -> None:
    """A manifest may name objects without their sizes; two dozen requests are under way at once."""
    entries = [Entry(f"s3://bucket/{number}.jpg", None, "") for number in range(40)]
    with _Store() as store, asking(store.url):
        pipeline = make_pipeline(bundle_uri, tmp_path)
        before, peak = resident(), 0
        worker = threading.Thread(target=pipeline.segment, args=(entries,), daemon=True)
        worker.start()
        try:
            while worker.is_alive():
                peak = max(peak, resident())
                time.sleep(0.002)
        finally:
            pipeline.stop()
            worker.join(60)
    # 128 MB, and a file once more while it is put together; the files are 1,600 MB.
    assert (peak - before) / 1e6 < 400


def test_a_store_that_never_answers_does_not_keep_an_interrupted_run(
    bundle_uri: str, tmp_path: Path, credentials: pytest.MonkeyPatch
) -> None:
    credentials.setattr(objects, "READ_SECONDS", 2.0)
    entries = [Entry(f"s3://bucket/{number}.jpg", 5, "") for number in range(200)]
    # Connections are made, and nobody ever reads from them.
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as deaf,
        asking(f"http://127.0.0.1:{deaf.getsockname()[1]}"),
    ):
        pipeline = make_pipeline(bundle_uri, tmp_path)
        worker = threading.Thread(target=pipeline.segment, args=(entries,), daemon=True)
        worker.start()
        try:
            time.sleep(1)
            assert worker.is_alive()
        finally:
            begun = time.monotonic()
            pipeline.stop()
            worker.join(60)
        assert time.monotonic() - begun < 17
    # What was not done is not in errors either: the next run does it.
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_write_that_fails_ends_all_chunks(
    bundle_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that is given up lets the others have their turn."""
    monkeypatch.setattr(writer, "FILE_SECONDS", 0.0)  # each batch is written
    for number in range(400):
        (tmp_path / f"{number}.jpg").write_bytes(encode(draw_picture(20, 30), "JPEG"))
    entries = [Entry(f"{tmp_path}/{number}.jpg", None, "") for number in range(400)]
    chunks = [entries[start : start + 100] for start in range(0, 400, 100)]
    (tmp_path / "results").write_text("a file where a folder should be")
    pipeline = make_pipeline(bundle_uri, tmp_path)
    failed: list[InputError] = []

    def segment() -> None:
        try:
            pipeline.segment_all(chunks)
        except InputError as error:
            failed.append(error)

    thread = threading.Thread(target=segment, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert "results" in str(failed[0])

"""The pipeline: how much it holds, and how it is given up."""

import asyncio
import socket
import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from segray.bulk import writer
from segray.bulk.pipeline import Pipeline, PipelineConfig
from segray.bulk.tally import Attempt, Tally
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


class _Deaths(Tally):
    """Tells that two processes have died with some chunk; notes the images in hand alone."""

    def __init__(self, suspect: list[Entry]) -> None:
        super().__init__()
        self._suspect, self.alone = {entry.id for entry in suspect}, list[int]()
        self._names: list[str] = []

    def begin(self, chunk: str) -> Attempt:
        self._names.append(chunk)
        return Attempt(3 if len(self._names) == 2 else 1, frozenset())

    def hold_alone(self, chunk: str, id: int) -> None:
        assert id in self._suspect
        self.alone.append(id)


class _Waiting:
    """A network of zeros whose first batch takes until it is let go."""

    def __init__(self, classes: int) -> None:
        self._classes, self.reached, self.let_go = classes, threading.Event(), threading.Event()

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.reached.set()
        assert self.let_go.wait(60)
        return np.zeros((*images.shape[:3], self._classes), dtype=np.float32)


def test_an_image_that_is_suspected_is_the_only_one_of_its_process(
    bundle_uri: str, tmp_path: Path
) -> None:
    """Else it would be blamed for what an image of another chunk does."""
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(encode(draw_picture(20, 30), "JPEG"))
    entries = [Entry(f"{tmp_path}/{number}.jpg", None, "") for number in range(6)]
    bundle = open_bundle(bundle_uri, [ONNX])
    config = PipelineConfig(bundle, str(tmp_path / "out"), "original", 8, 2)
    deaths, network = _Deaths(entries[3:]), _Waiting(len(bundle.labels))
    pipeline = Pipeline(config, network, deaths)
    workers = [
        threading.Thread(target=pipeline.segment, args=(chunk,), daemon=True)
        for chunk in (entries[:3], entries[3:])
    ]
    workers[0].start()
    assert network.reached.wait(60)
    workers[1].start()
    time.sleep(0.5)
    assert deaths.alone == []

    network.let_go.set()
    for worker in workers:
        worker.join(60)

    assert deaths.alone == [entry.id for entry in entries[3:]]
    assert sum(pq.read_table(tmp_path / "out" / "results")["id"].is_valid().to_pylist()) == 6


def test_only_an_image_that_processes_died_with_twice_is_blamed() -> None:
    tally = Tally()
    for _ in range(2):
        assert tally.begin("a").deadly == frozenset()
        tally.hold_alone("a", 1)
        tally.hold_alone("a", 2)
    assert tally.begin("a").deadly == {2}

    # Whoever finishes a chunk has not died with it.
    for _ in range(3):
        assert tally.begin("b").deadly == {2}
        tally.hold_alone("b", 3)
        tally.done("b", "host:1", {"segmented": 1, "failed": 0, "bytes": 0, "retries": 0}, True)

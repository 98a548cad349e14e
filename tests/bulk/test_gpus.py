"""Predicting on GPUs, which are none here: Ray hands them out, and the network runs on a CPU."""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.bulk.cluster import segment_on_ray
from segray.bulk.config import SegmentConfig
from segray.bulk.gpus import GpuPool
from segray.bulk.plan import make_plan
from segray.bulk.run import segment
from segray.errors import InputError
from segray.model.bundle import ONNX, open_bundle
from segray.model.predictor import Predictor, load_predictor
from tests.processes import kill
from tests.support import draw_picture, encode

pytestmark = pytest.mark.usefixtures("ray_session")


class Marked:
    """A predictor that leaves a file named after its process for each batch."""

    def __init__(self, load: Callable[[], Predictor], folder: Path, delay: float = 0.0) -> None:
        self._predictor, self._folder, self._delay = load(), folder, delay
        self._batches = 0

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self._batches += 1
        (self._folder / f"{os.getpid()}-{self._batches}").touch()
        time.sleep(self._delay)
        return self._predictor.predict(images)


@pytest.fixture
def config(bundle_uri: str, tmp_path: Path) -> SegmentConfig:
    images = tmp_path / "images"
    images.mkdir()
    (tmp_path / "marks").mkdir()
    for number in range(100):
        picture = draw_picture(30 + number % 7, 40, number)
        (images / f"{number}.jpg").write_bytes(encode(picture, "JPEG"))
    return SegmentConfig(
        model=bundle_uri,
        images=str(images),
        output=str(tmp_path / "out"),
        engine="onnx",
        use_gpu=True,
        batch_size=8,
    )


def run(config: SegmentConfig, load: Callable[[], Predictor]) -> None:
    with make_plan(config) as plan:
        segment_on_ray(plan, load)


def rows(output: str) -> pa.Table:
    return pq.read_table(f"{output}/results").sort_by("id")


def processes(marks: Path) -> set[int]:
    return {int(mark.name.partition("-")[0]) for mark in marks.iterdir()}


def test_results_are_those_of_the_cpu_path_bit_for_bit(
    config: SegmentConfig, tmp_path: Path
) -> None:
    bundle = open_bundle(config.model, [ONNX])
    load = partial(load_predictor, bundle, "onnx", 1)

    run(config, partial(Marked, load, tmp_path / "marks"))

    here = SegmentConfig(
        model=config.model, images=config.images, output=str(tmp_path / "here"), engine="onnx"
    )
    with make_plan(here) as plan:
        segment(plan, on_ray=False)
    assert rows(config.output).num_rows == 100
    assert rows(config.output).equals(rows(here.output))
    # One process had the network, whoever decoded.
    assert len(processes(tmp_path / "marks")) == 1


def test_a_predictor_that_is_killed_loses_nothing(config: SegmentConfig, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    load = partial(load_predictor, open_bundle(config.model, [ONNX]), "onnx", 1)
    killed: set[int] = set()

    over = threading.Event()

    def kill_the_first() -> None:
        while not killed and not over.is_set():
            time.sleep(0.05)
            killed.update(processes(marks))
        for pid in killed:
            kill(pid)

    killer = threading.Thread(target=kill_the_first, daemon=True)
    killer.start()
    try:
        run(config, partial(Marked, load, marks, 0.5))
    finally:
        over.set()
        killer.join()

    assert processes(marks) > killed
    ids = rows(config.output)["id"].to_pylist()
    assert ids == sorted(set(ids))
    assert rows(config.output).num_rows == 100
    assert not list(Path(config.output, "errors").glob("*.parquet"))


def test_a_node_that_sees_no_gpu_ends_the_job_with_one_line(config: SegmentConfig) -> None:
    """Both engines; never silently on the CPU. What was there before is not deleted for it."""
    here = SegmentConfig(**{**vars(config), "use_gpu": False})
    with make_plan(here) as plan:
        before = segment(plan, on_ray=False).census.segmented
    for engine, reason in (("onnx", "built for CPUs only"), ("tensorflow", "TensorFlow sees none")):
        values: dict[str, Any] = {**vars(config), "engine": engine, "overwrite": True}
        with (
            make_plan(SegmentConfig(**values)) as plan,
            pytest.raises(InputError, match=rf"--use-gpu: no GPU .*{reason}.*\[gpu\]") as caught,
        ):
            segment(plan, on_ray=True)
        assert len(str(caught.value).splitlines()) == 1
    assert rows(config.output).num_rows == before


def _die() -> Predictor:
    os._exit(1)


class DiesOfABatch:
    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        os._exit(1)


@pytest.mark.parametrize("load", [_die, DiesOfABatch], ids=["as it starts", "of a batch"])
def test_predictors_that_never_do_a_batch_end_the_job(load: Callable[[], Predictor]) -> None:
    pool = GpuPool(load, 1)
    with (
        pool.running(),
        pytest.raises(InputError, match="predictors on GPUs end before a batch is done"),
    ):
        pool.connect().predict(np.zeros((1, 8, 8, 3), np.uint8))

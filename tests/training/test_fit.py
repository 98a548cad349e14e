"""Fitting: what goes wrong around the loop, on runs of one step."""

import dataclasses
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from segray.errors import InputError
from segray.model.bundle import DESCRIPTION
from segray.storage.pairs import find_pairs
from segray.training import fit as fit_module
from segray.training import loop as loop_module
from segray.training.checkpoint import Checkpoints
from segray.training.config import TrainConfig
from segray.training.examples import Examples, decode_pairs
from segray.training.fit import fit
from segray.training.loop import Assignment
from segray.training.prepare import MARKER
from tests.support import free_port, write_shapes

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_shapes(str(folder), 2)
    return folder


def assign(data: Path, output: Path, **settings: object) -> Assignment:
    """A run of one step on two images, whose folder is claimed."""
    output.mkdir()
    (output / MARKER).write_text("{}")
    config = TrainConfig(
        images=f"{data}/images",
        masks=f"{data}/masks",
        classes=("box=10", "ground=20"),
        image_size=32,
        detail=1.0,
        batch_size=2,
        epochs=1,
    )
    config = dataclasses.replace(config, **settings)  # type: ignore[arg-type]

    def decode(size: int) -> Examples:
        pairs = find_pairs(f"{data}/images", f"{data}/masks").pairs
        return decode_pairs(pairs, config.labels, size, True, lambda done: None).examples

    return Assignment(
        config=config,
        output=str(output),
        train=decode(config.training_size),
        validation=decode(config.image_size),
        class_weights=np.ones(2, np.float32),
        encoder_weights=None,
        record={"configuration": config.to_json()},
    )


def hold(cpus: int) -> object:
    """Somebody else's actor on the cluster, which has two CPUs."""
    import ray

    class Other:
        def here(self) -> bool:
            return True

    actor = ray.remote(num_cpus=cpus)(Other).remote()
    ray.get(actor.here.remote())
    return actor


def test_a_machine_that_takes_minutes_for_an_image_saves_its_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock runs ten thousand times as fast: the rate is rounded to 0.00 images/s.

    And what comes afterwards in this process computes as before, whatever the precision was.
    """
    clock = SimpleNamespace(monotonic=lambda: 10_000 * time.monotonic())
    monkeypatch.setattr(loop_module, "time", clock)
    policy = keras.config.dtype_policy().name
    lines: list[str] = []
    assignment = assign(data, tmp_path / "out", workers=0, precision="mixed_bfloat16")
    fit(assignment, lines.append, lambda history: None)
    assert Checkpoints(f"{tmp_path}/out/checkpoints").newest() == 1
    assert any("0.0 images/s" in line for line in lines)
    assert keras.config.dtype_policy().name == policy


def test_what_a_restart_does_not_mend_is_tried_twice(data: Path, tmp_path: Path) -> None:
    """On the CPU that somebody else has left."""
    import ray

    assignment = assign(data, tmp_path / "out", max_restarts=5)
    (tmp_path / "out" / "previews").write_text("a file where the run wants a folder")
    lines: list[str] = []
    other = hold(cpus=1)
    try:
        with pytest.raises(InputError, match=r"^cannot write .*/previews/epoch_0001\.png: "):
            fit(assignment, lines.append, lambda history: None)
    finally:
        ray.kill(other)
    assert lines[0] == "starting 1 worker(s) on 1 CPU(s) each; it may take a minute"
    assert lines.count("going on after epoch 1, the last one saved") == 1


def test_workers_that_wait_for_room_say_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And begin when there is."""
    import ray

    monkeypatch.setattr(fit_module, "_SECONDS_BETWEEN_WAITING_REPORTS", 2.0)
    assignment = assign(data, tmp_path / "out")
    lines: list[str] = []
    other = hold(cpus=2)

    def tell(line: str) -> None:
        lines.append(line)
        if line.startswith("waiting for room"):
            ray.kill(other)

    fit(assignment, tell, lambda history: None)
    assert lines[0] == "starting 1 worker(s) on 2 CPU(s) each; it may take a minute"
    assert lines[1] == (
        "waiting for room for 1 worker(s) on 2 CPU(s) each: 0 CPU(s) are free, on all nodes "
        "together"
    )
    assert (tmp_path / "out" / "model" / DESCRIPTION).exists()


def test_workers_that_cannot_connect_are_started_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a port is closed: one of them looks for the other where nobody listens."""

    def train_unreachable(settings: dict) -> None:
        import tensorflow as tf

        from segray.training.worker import train_worker

        connect = tf.distribute.MultiWorkerMirroredStrategy

        def connect_elsewhere() -> tf.distribute.Strategy:
            task, mark = json.loads(os.environ["TF_CONFIG"]), tmp_path / "unreachable"
            if task["task"]["index"] == 1 and not mark.exists():
                mark.touch()
                task["cluster"]["worker"][0] = f"127.0.0.1:{free_port()}"
                os.environ["TF_CONFIG"] = json.dumps(task)
            return connect()

        tf.distribute.MultiWorkerMirroredStrategy = connect_elsewhere
        train_worker(settings)

    monkeypatch.setattr(fit_module, "train_worker", train_unreachable)
    assignment = assign(data, tmp_path / "out", workers=2, stall_timeout=60.0)
    lines: list[str] = []
    fit(assignment, lines.append, lambda history: None)
    assert (tmp_path / "unreachable").exists()
    [line] = [line for line in lines if "did not" in line]
    assert line.startswith("the workers did not connect to each other (")
    assert line.endswith("every node has to reach the others at all ports")
    assert (tmp_path / "out" / "model" / DESCRIPTION).exists()

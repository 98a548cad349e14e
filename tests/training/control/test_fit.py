"""Fitting: what goes wrong around the loop, on runs of one step."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
import ray
from PIL import Image

from segray import nodes as nodes_module
from segray.errors import InputError
from segray.model.bundle import DESCRIPTION, WEIGHTS, open_bundle
from segray.model.start import StartingModel
from segray.training.control import fit as fit_module
from segray.training.control import loop as loop_module
from segray.training.control.checkpoint import Checkpoints
from segray.training.control.fit import fit
from segray.training.step.calibration import Calibration
from tests.processes import descendants
from tests.support import free_port, logged_lines, write_shapes
from tests.training.runs import assign, hold
from tests.training.tiny import shrink_network, train_tiny

NEARLY_NOTHING = {"learning_rate": 1e-9, "encoder_learning_rate": 1e-9, "weight_decay": 0.0}


def weights_of(output: Path) -> dict[str, np.ndarray]:
    """The weights of a run's model, without running statistics, which every step moves."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(output / "model" / WEIGHTS) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    statistics = ("vars/2", "vars/3")
    return {name: values for name, values in found.items() if not name.endswith(statistics)}


pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_shapes(str(folder), 2)
    return folder


def test_a_machine_that_takes_minutes_for_an_image_saves_its_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """Its clock runs ten thousand times as fast: the rate is rounded to 0.00 images/s.

    And what comes afterwards in this process computes as before, whatever the precision was.
    """
    clock = SimpleNamespace(monotonic=lambda: 10_000 * time.monotonic())
    monkeypatch.setattr(loop_module, "time", clock)
    policy = keras.config.dtype_policy().name
    shrink_network(monkeypatch.setattr)
    assignment = assign(data, tmp_path / "out", workers=0, precision="mixed_bfloat16")
    fit(assignment, lambda history: None)
    assert Checkpoints(f"{tmp_path}/out/checkpoints").newest() == 1
    assert any("0.0 images/s" in line for line in lines)
    assert keras.config.dtype_policy().name == policy


def test_the_best_epoch_is_calibrated_and_not_the_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_network(monkeypatch.setattr)
    score = loop_module.TrainingLoop._score
    used: list[list[np.ndarray]] = []

    def get_worse(loop: loop_module.TrainingLoop, epoch: int) -> dict:
        return {**score(loop, epoch), "mean_iou": 1 / epoch}

    def find(predict, examples, config) -> Calibration:
        used.append(predict.__self__.model.get_weights())
        return Calibration(2.0, 1.25)

    monkeypatch.setattr(loop_module.TrainingLoop, "_score", get_worse)
    monkeypatch.setattr(loop_module, "find_calibration", find)
    fit(assign(data, tmp_path / "out", workers=0, epochs=2), lambda history: None)
    [weights] = used
    with np.load(tmp_path / "out" / "checkpoints" / "epoch_0001.npz") as arrays:
        for i, values in enumerate(weights):
            np.testing.assert_array_equal(values, arrays[f"model/{i}"])
    model = json.loads((tmp_path / "out" / "model" / "model.json").read_text())
    assert (model["metrics"]["epoch"], model["temperature"]) == (1, 2.0)
    assert open_bundle(f"{tmp_path}/out/model", []).iou_exponent == 1.25


def test_a_few_pixels_of_a_class_that_is_not_there_do_not_choose_the_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean IoU is that of the classes in the ground truth, the same in all epochs."""
    shrink_network(monkeypatch.setattr)
    # Of 10 pixels of each class that is there, 1 and 2 are taken for the one that is not.
    confusion = np.array([[9, 0, 1], [0, 8, 2], [0, 0, 0]])
    monkeypatch.setattr(loop_module, "score_share", lambda *args: (confusion, 1.0))
    settings = {"classes": ("box=10", "ground=20", "tree=30"), "workers": 0, "calibrate": False}
    fit(assign(data, tmp_path / "out", **settings), lambda history: None)
    record = json.loads((tmp_path / "out" / "metrics.jsonl").read_text())
    assert record["mean_iou"] == pytest.approx(0.85)


def test_crops_of_images_of_any_size_are_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept or decoded anew, an epoch sees the same crops; no pixel of the validation is lost."""
    shrink_network(monkeypatch.setattr)
    scored: list[np.ndarray] = []
    score = loop_module.score_share

    def score_and_keep(*args):
        scored.append(score(*args)[0])
        return score(*args)

    monkeypatch.setattr(loop_module, "score_share", score_and_keep)
    write_shapes(str(tmp_path), 6)
    pixels, records = 0, []
    for path in (tmp_path / "images").iterdir():
        with Image.open(path) as image:
            pixels += image.width * image.height
    settings = {"fit": "tile", "workers": 0, "batch_size": 8, "calibrate": False}
    for keep in (True, False):
        output = tmp_path / f"kept_{keep}"
        fit(assign(tmp_path, output, keep=keep, **settings), lambda history: None)
        record = json.loads((output / "metrics.jsonl").read_text())
        records.append({name: record[name] for name in ("train_loss", "loss", "mean_iou")})
        document = json.loads((output / "model" / "model.json").read_text())
        assert document["architecture"]["fit"] == "tile"
    assert records[0] == records[1]
    assert [confusion.sum() for confusion in scored] == [pixels, pixels]


def test_a_run_goes_on_from_an_earlier_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """It begins where that ended, says so, and the encoder is trained from the first step."""
    shrink_network(monkeypatch.setattr)
    settings = {"workers": 0, "calibrate": False}
    fit(assign(data, tmp_path / "one", **settings), lambda history: None)
    uri = str(tmp_path / "one" / "model")
    content = (tmp_path / "one" / "model" / WEIGHTS).read_bytes()
    config = assign(data, tmp_path / "unused").config
    start = StartingModel(uri, "digest", config.architecture, config.labels.names, content)
    assignment = assign(data, tmp_path / "two", from_model=uri, **NEARLY_NOTHING, **settings)
    assignment = dataclasses.replace(assignment, encoder_weights=ray.put(b""), start=ray.put(start))
    fit(assignment, lambda history: None)
    ended = json.loads((tmp_path / "one" / "metrics.jsonl").read_text())
    [line] = [line for line in lines if line.startswith("before the first epoch")]
    assert f"mIoU {ended['mean_iou']:.3f}" in line
    before, after = (weights_of(tmp_path / name) for name in ("one", "two"))
    assert before.keys() == after.keys()
    moved = {name for name, values in before.items() if not np.array_equal(values, after[name])}
    assert [name for name in moved if name.startswith("layers/functional")]
    for name, values in before.items():
        np.testing.assert_allclose(values, after[name], atol=1e-3, err_msg=name)


def test_what_a_restart_does_not_mend_is_tried_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """On the CPU that somebody else has left."""
    import ray

    monkeypatch.setattr(fit_module, "train_worker", train_tiny)
    assignment = assign(data, tmp_path / "out", max_restarts=5)
    (tmp_path / "out" / "previews").write_text("a file where the run wants a folder")
    other = hold(cpus=1)
    try:
        with pytest.raises(InputError, match=r"^cannot write .*/previews/epoch_0001\.png: "):
            fit(assignment, lambda history: None)
    finally:
        ray.kill(other)
    assert lines[0] == "starting 1 worker(s) with 1 CPU each; it may take a minute"
    assert lines.count("resuming after epoch 1") == 1


def test_without_restarts_a_run_ends_with_its_first_loss(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """Also with one after a finished epoch, whose checkpoint is there."""

    def die_in_the_second_epoch(settings: dict) -> None:
        from segray.training.control.loop import TrainingLoop

        learn = TrainingLoop._learn

        def learn_once(loop: TrainingLoop, epoch: int) -> tuple[dict, float]:
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return learn(loop, epoch)

        TrainingLoop._learn = learn_once  # type: ignore[method-assign]
        train_tiny(settings)

    assignment = assign(data, tmp_path / "out", epochs=2, max_restarts=0)
    monkeypatch.setattr(fit_module, "train_worker", die_in_the_second_epoch)
    with pytest.raises(InputError, match=r"^a worker was lost$"):
        fit(assignment, lambda history: None)
    assert len([line for line in lines if line.startswith("starting")]) == 1
    assert Checkpoints(f"{tmp_path}/out/checkpoints").newest() == 1


def test_workers_that_die_as_they_start_end_the_run(
    data: Path, tmp_path: Path, lines: list[str]
) -> None:
    """As where a node has too little memory, or lacks a library."""
    ended = threading.Event()

    def kill_all() -> None:
        while not ended.wait(0.05):
            for pid, name in descendants(os.getpid()).items():
                if name.startswith("ray::RayTrainWorker"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(InputError):
            fit(assign(data, tmp_path / "out", max_restarts=1), lambda history: None)
    finally:
        ended.set()
        killer.join()
    assert len([line for line in lines if line.startswith("starting")]) == 2


def test_workers_that_wait_for_room_say_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And begin when there is."""
    import ray

    monkeypatch.setattr(nodes_module, "WAITING_SECONDS", 2.0)
    monkeypatch.setattr(fit_module, "train_worker", train_tiny)
    assignment = assign(data, tmp_path / "out")
    other = hold(cpus=2)

    def make_room(line: str) -> None:
        if line.startswith("waiting for room"):
            ray.kill(other)

    with logged_lines(make_room) as lines:
        fit(assignment, lambda history: None)
    assert lines[0] == "starting 1 worker(s) with 2 CPUs each; it may take a minute"
    assert lines[1] == (
        f"waiting for room for 1 worker(s) with 2 CPUs each: {socket.gethostname()} has 0 of 2 "
        "CPUs free"
    )
    assert (tmp_path / "out" / "model" / DESCRIPTION).exists()


@pytest.mark.slow
def test_workers_that_cannot_connect_are_started_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """As where a port is closed: one of them looks for the other where nobody listens."""

    def train_unreachable(settings: dict) -> None:
        import tensorflow as tf

        connect = tf.distribute.MultiWorkerMirroredStrategy

        def connect_elsewhere() -> tf.distribute.Strategy:
            task, mark = json.loads(os.environ["TF_CONFIG"]), tmp_path / "unreachable"
            if task["task"]["index"] == 1 and not mark.exists():
                mark.touch()
                task["cluster"]["worker"][0] = f"127.0.0.1:{free_port()}"
                os.environ["TF_CONFIG"] = json.dumps(task)
            return connect()

        tf.distribute.MultiWorkerMirroredStrategy = connect_elsewhere
        train_tiny(settings)

    monkeypatch.setattr(fit_module, "train_worker", train_unreachable)
    assignment = assign(data, tmp_path / "out", workers=2, stall_timeout=60.0)
    fit(assignment, lambda history: None)
    assert (tmp_path / "unreachable").exists()
    [line] = [line for line in lines if "did not" in line]
    assert line.startswith("the workers did not connect to each other (")
    assert line.endswith("every node has to reach the others at all ports")
    assert (tmp_path / "out" / "model" / DESCRIPTION).exists()

"""Kill -9 at random moments: the job that trains, and one of its workers.

Reduced here to one run without workers whose process is killed. `pytest -m slow` has one of two
workers in which both are killed; in full, five runs for each, of two workers and of one by turns:
`SEGRAY_CHAOS=5 pytest -m slow tests/jobs/test_chaos.py`.
"""

import dataclasses
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from segray.storage.files import PARTIAL
from tests.processes import descendants, kill
from tests.support import write_shapes
from tests.training.runs import run, settings

ROOT = Path(__file__).parent.parent.parent
ROUNDS = int(os.environ.get("SEGRAY_CHAOS", "1"))
# What is killed in a run, one after the other.
VICTIMS = [("worker", "driver")] if ROUNDS == 1 else [("worker",), ("driver",)]
EPOCHS = 4
TIMING = ("images_per_second", "waiting", "seconds")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_shapes(str(folder), 40)
    return folder


def workers_of(turn: int) -> int:
    return 2 - turn % 2


def start(data: Path, output: Path, encoder_file: str, workers: int) -> subprocess.Popen[bytes]:
    flags = {
        "images": data / "images",
        "masks": data / "masks",
        "output": output,
        "encoder-weights": encoder_file,
        "image-size": 32,
        "batch-size": 8,
        "epochs": EPOCHS,
        "frozen-epochs": 1,
        "workers": workers,
    }
    command = [sys.executable, "jobs/train.py", "--classes", "box=10", "ground=20"]
    command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    # Not on the cluster that another test may have started on this machine.
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    with (output.parent / f"{output.name}.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def finish(process: subprocess.Popen[bytes], output: Path) -> None:
    status = process.wait(timeout=600)
    assert status == 0, (output.parent / f"{output.name}.log").read_text()[-3000:]


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory, encoder_file: str):
    """By the number of workers: the scores of each epoch, the weights, and the seconds that a whole
    run takes.
    """
    runs = {}
    for workers in {workers_of(turn) for turn in range(ROUNDS)}:
        output = tmp_path_factory.mktemp("straight") / "out"
        started = time.monotonic()
        finish(start(data, output, encoder_file, workers), output)
        runs[workers] = (scores(output), weights(output), time.monotonic() - started)
    return runs


def scores(output: Path) -> list[dict[str, object]]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in TIMING} for record in records]


def weights(output: Path) -> str:
    """A digest of the arrays of the last checkpoint, optimizer included; all have to be whole."""
    digest = hashlib.sha256()
    for file in sorted((output / "checkpoints").glob("*.npz")):
        with np.load(file) as arrays:
            values = [arrays[name] for name in sorted(arrays.files) if name != "progress"]
    for value in values:
        digest.update(value.tobytes())
    return digest.hexdigest()


def kill_driver(process: subprocess.Popen[bytes]) -> None:
    """And with it everything that it started, as when the machine goes down."""
    children = descendants(process.pid)
    for pid in (process.pid, *children):
        kill(pid)
    process.wait()


def kill_worker(process: subprocess.Popen[bytes], chance: random.Random) -> bool:
    """Whether there was one."""
    workers = [p for p, name in descendants(process.pid).items() if "RayTrainWorker" in name]
    if workers:
        kill(chance.choice(sorted(workers)))
    return bool(workers)


def wait_for_epochs(process: subprocess.Popen[bytes], output: Path, epochs: int) -> None:
    """Until so many are saved, or the run is over."""
    while process.poll() is None:
        if (output / "checkpoints" / f"epoch_{epochs:04d}.npz").exists():
            return
        time.sleep(0.02)


@pytest.mark.usefixtures("ray_session")
def test_a_run_whose_process_is_killed_ends_where_an_uninterrupted_one_does(
    data: Path, tmp_path: Path, encoder_file: str
) -> None:
    """It goes on in another process, and is compared with one that ran in that."""
    output = tmp_path / "out"
    process = start(data, output, encoder_file, 0)
    wait_for_epochs(process, output, 1)
    assert process.poll() is None, (tmp_path / "out.log").read_text()[-3000:]
    kill_driver(process)
    straight = settings(
        *(str(data), str(tmp_path / "straight"), encoder_file),
        **{"epochs": EPOCHS, "frozen_epochs": 1, "workers": 0, "validation_fraction": 0.1},
    )
    _, lines = run(dataclasses.replace(straight, output=str(output)))
    assert [line for line in lines if line.startswith("resuming after epoch")]
    run(straight)
    assert scores(output) == scores(tmp_path / "straight")
    assert [record["epoch"] for record in scores(output)] == list(range(1, EPOCHS + 1))
    assert weights(output) == weights(tmp_path / "straight")
    check_files(output)


@pytest.mark.slow
@pytest.mark.parametrize("victims", VICTIMS, ids=" and ".join)
@pytest.mark.parametrize("turn", range(ROUNDS))
def test_a_killed_run_ends_where_an_uninterrupted_one_does(
    data: Path,
    tmp_path: Path,
    encoder_file: str,
    uninterrupted,
    victims: tuple[str, ...],
    turn: int,
) -> None:
    expected, expected_weights, seconds = uninterrupted[workers_of(turn)]
    output = tmp_path / "out"
    chance = random.Random(f"{' and '.join(victims)}{turn}")
    process = start(data, output, encoder_file, workers_of(turn))
    # How many epochs are saved by then: each is killed between two, inside of one, or before all.
    moments = sorted(chance.sample(range(EPOCHS), len(victims)))
    for victim, saved in zip(victims, moments, strict=True):
        if saved:
            wait_for_epochs(process, output, saved)
            time.sleep(chance.uniform(0, 2))
        else:
            time.sleep(chance.uniform(0, seconds / 2))
        if victim == "driver":
            assert process.poll() is None, "the run was over before it was killed"
            kill_driver(process)
            process = start(data, output, encoder_file, workers_of(turn))
        else:
            killed = False
            while process.poll() is None and not (killed := kill_worker(process, chance)):
                time.sleep(0.1)
            assert killed, "the run was over before a worker was found"
    finish(process, output)
    assert scores(output) == expected
    assert [record["epoch"] for record in scores(output)] == list(range(1, EPOCHS + 1))
    assert weights(output) == expected_weights
    check_files(output)


def check_files(output: Path) -> None:
    """A model is there, and nothing half-written."""
    assert (output / "model" / "model.json").exists()
    # Nothing half-written is left, neither under a checkpoint's name nor under another.
    names = {path.name for path in (output / "checkpoints").iterdir() if path.is_file()}
    names -= {".validate_storage_marker"}  # Ray Train's own
    assert all(re.fullmatch(r"epoch_\d{4}\.npz", name) for name in names), names
    assert not list(output.rglob(f"{PARTIAL}*"))

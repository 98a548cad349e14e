"""Workers that come and go: a run with a range of workers ends where one of a fixed number does."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from segray.training.control import fit as fit_module
from segray.training.control.assignment import Assignment
from segray.training.control.fit import fit
from tests.support import logged_lines, write_shapes
from tests.training.runs import assign, hold
from tests.training.tiny import train_tiny

pytestmark = pytest.mark.usefixtures("ray_session")

EPOCHS, STEPS = 5, 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_shapes(str(folder), 7 * STEPS)
    return folder


def assign_steps(
    data: Path, output: Path, encoder: str, workers: int | tuple[int, int]
) -> Assignment:
    """Twenty steps on batches of seven images, which two workers cannot share equally."""
    return assign(
        data,
        output,
        encoder,
        workers=workers,
        batch_size=7,
        epochs=EPOCHS,
        frozen_epochs=0,
        calibrate=False,
        learning_rate=1e-3,
        encoder_learning_rate=1e-4,
    )


def train_by_sgd(settings: dict) -> None:
    """A worker whose steps are linear in the gradients, so that rounding stays rounding.

    The epochs of a run with a range of workers take three seconds, and in the fourth one of two
    workers dies.
    """
    import keras
    import ray.train

    from segray.training.control import loop as loop_module
    from segray.training.step.network import TrainableNetwork

    def make(*args: object, **others: object) -> TrainableNetwork:
        return TrainableNetwork(
            *args, **others, make=lambda config: [keras.optimizers.SGD() for _ in range(3)]
        )

    score = loop_module.TrainingLoop._score

    def take_time(loop: loop_module.TrainingLoop, epoch: int) -> dict:
        if isinstance(settings["assignment"].config.workers, tuple):
            time.sleep(3)
        if ray.train.get_context().get_world_rank() == 1 and epoch == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return score(loop, epoch)

    loop_module.TrainableNetwork = make  # type: ignore[assignment, misc]
    loop_module.TrainingLoop._score = take_time  # type: ignore[method-assign]
    train_tiny(settings)


def final_weights(output: Path) -> dict[str, np.ndarray]:
    with np.load(output / "checkpoints" / f"epoch_{EPOCHS:04}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith("model/")}


# Four times workers start, which takes minutes on a busy machine.
@pytest.mark.timeout(1200)
def test_a_run_grows_and_shrinks_and_ends_as_one_of_a_fixed_number(
    data: Path, tmp_path: Path, encoder_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with one worker beside somebody else's work; takes in a second one when that has
    ended; and goes on without it when it dies and its place is taken.
    """
    import ray

    monkeypatch.setattr(fit_module, "train_worker", train_by_sgd)
    others = [hold(cpus=1)]

    def react(line: str) -> None:
        if line.startswith("epoch   1/") and "mIoU" in line:
            ray.kill(others.pop())
        if "was lost" in line:
            others.append(hold(cpus=1))

    elastic = assign_steps(data, tmp_path / "elastic", encoder_file, workers=(1, 2))
    with logged_lines(react) as lines:
        fit(elastic, lambda history: None)
    ray.kill(others.pop())
    started = [line.split()[1] for line in lines if line.startswith("starting")]
    assert started == ["1", "2", "1"]
    fixed = assign_steps(data, tmp_path / "fixed", encoder_file, workers=1)
    fit(fixed, lambda history: None)
    one, other = final_weights(tmp_path / "elastic"), final_weights(tmp_path / "fixed")
    assert one.keys() == other.keys()
    differences = [np.abs(one[n] - other[n]).max() / max(np.abs(other[n]).max(), 0.01) for n in one]
    print(f"{EPOCHS * STEPS} steps on 1, 2 and 1 workers against 1: {max(differences):.2e}")
    assert max(differences) < 5e-4

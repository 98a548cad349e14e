import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support import free_port

# One process of a run: it learns from its share of the same global batches.
PROGRAM = """
import json, os, sys
import keras, numpy as np, tensorflow as tf
from segray.training.network import TrainableNetwork

rank, workers, output, weights = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
strategy = tf.distribute.MultiWorkerMirroredStrategy()
keras.utils.set_random_seed(0)
network = TrainableNetwork(strategy, 3, 32, open(weights, "rb").read(), 1e-3)
rng = np.random.default_rng(0)
losses = []
for step in range(3):
    images = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    masks = rng.integers(0, 3, (8, 32, 32), dtype=np.uint8)
    masks[rng.random(masks.shape) < 0.3] = 255  # an uneven number of ignored pixels
    share = slice(rank * 8 // workers, (rank + 1) * 8 // workers)
    losses.append(network.train(images[share], masks[share], rng.random(8)[share] < 0.5))
confusion, loss = network.sum_over_replicas(np.full((3, 3), 1 + rank), 0.5)
np.savez(output, *network.model.get_weights())
print(json.dumps({"losses": losses, "confusion": confusion.tolist(), "loss": loss}))
"""


def run_workers(
    folder: Path, workers: int, weights_file: str
) -> tuple[list[dict], list[list[np.ndarray]]]:
    """Start the processes together; what each printed, and the weights it ended with."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(workers)]
    processes = []
    for rank in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        command = [sys.executable, "-c", PROGRAM, str(rank), str(workers)]
        processes.append(
            subprocess.Popen(
                [*command, str(folder / f"{workers}_{rank}.npz"), weights_file],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    printed, weights = [], []
    for rank, process in enumerate(processes):
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        printed.append(json.loads(output.splitlines()[-1]))
        with np.load(folder / f"{workers}_{rank}.npz") as values:
            weights.append([values[name] for name in values.files])
    return printed, weights


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, encoder_file: str):
    return run_workers(tmp_path_factory.mktemp("two"), 2, encoder_file)


def test_both_workers_hold_equal_weights(two_workers) -> None:
    _, (first, second) = two_workers
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_workers_learn_what_one_does(two_workers, tmp_path: Path, encoder_file: str) -> None:
    """The same summed loss and number of labelled pixels, step after step."""
    [alone], _ = run_workers(tmp_path, 1, encoder_file)
    for worker in two_workers[0]:
        np.testing.assert_allclose(worker["losses"], alone["losses"], rtol=1e-3)


def test_counts_are_summed_over_the_workers(two_workers) -> None:
    for worker in two_workers[0]:
        assert worker["confusion"] == [[3] * 3] * 3
        assert worker["loss"] == 1.0

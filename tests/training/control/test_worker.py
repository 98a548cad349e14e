"""What a worker does before and beside the training loop."""

import subprocess
import sys

# A process in which TensorFlow has computed on one thread before it is to train on two.
USED = """
import tensorflow as tf
from segray.errors import InputError
from segray.training.config import TrainConfig
from segray.training.control.worker import set_up_tensorflow

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.add(1, 1)
try:
    set_up_tensorflow(TrainConfig(), threads=2)
except InputError as error:
    print(error)
"""


def test_a_process_in_which_tensorflow_has_run_is_refused_in_words() -> None:
    """As by `--workers 0` in a notebook that has used the GPU."""
    done = subprocess.run([sys.executable, "-c", USED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "train in a new process, or take --workers 1" in done.stdout


# What a worker on two cores, or on one or eight, has TensorFlow compute on.
THREADS = """
import sys
import tensorflow as tf
from segray.training.config import TrainConfig
from segray.training.control.worker import set_up_tensorflow

threading = tf.config.threading
for words in sys.argv[1:]:
    batch_size, threads = map(int, words.split(","))
    config = TrainConfig(batch_size=batch_size)
    set_up_tensorflow(config, threads, config.count_parts(threads, 1))
    inside = threading.get_intra_op_parallelism_threads()
    print(inside, threading.get_inter_op_parallelism_threads())
"""


def test_layers_are_shared_out_only_where_there_are_more_cores_than_parts() -> None:
    """Cores that each have a part of the batch do not wait for each other at every layer.

    Until TensorFlow computes, its threads may be set as often as one likes.
    """
    # By the size of a batch and the cores: threads inside of a layer, and beside each other.
    expected = {"8,2": "1 2", "4,2": "2 2", "8,8": "8 8"}
    command = [sys.executable, "-c", THREADS, *expected]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == list(expected.values())

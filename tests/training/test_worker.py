"""What a worker does before and beside the training loop."""

import subprocess
import sys

# A process in which TensorFlow has computed on one thread before it is to train on two.
USED = """
import tensorflow as tf
from segray.errors import InputError
from segray.training.config import TrainConfig
from segray.training.worker import set_up_tensorflow

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

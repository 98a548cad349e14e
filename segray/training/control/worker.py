"""The worker: a process of Ray Train that runs the training loop together with the others."""

import json
import os
from typing import Any

import ray.train
import tensorflow as tf

from segray.errors import InputError
from segray.model.predictor import find_tensorflow_gpus
from segray.training.config import TrainConfig
from segray.training.control.assignment import Assignment
from segray.training.control.loop import TrainingLoop
from segray.training.control.mailbox import Mailbox, forward_log
from segray.training.control.watchdog import Watchdog


def train_worker(settings: dict[str, Any]) -> None:
    """Run one worker. The entry point for Ray Train.

    Args:
        settings: has the keys ``assignment``, ``mailbox`` and ``threads``.
    """
    assignment: Assignment = settings["assignment"]
    mailbox: Mailbox = settings["mailbox"]
    if mailbox.has_ended():
        return
    try:
        assignment.shared.check()
        find_gpus(assignment.config)
    except InputError as error:
        # No restart would solve it.
        mailbox.end(str(error))
        raise
    # Ray Train has chosen a free port for each worker.
    addresses: list[str] = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
    try:
        problem = _train(assignment, mailbox, settings["threads"], addresses)
    except InputError as error:
        mailbox.refuse(" ".join(addresses), str(error))
        raise
    if problem:
        # All workers return the same problem, so it is reported instead of raised.
        mailbox.end(problem)


def _train(assignment: Assignment, mailbox: Mailbox, threads: int, addresses: list[str]) -> str:
    """Run the training loop with the other workers; see `TrainingLoop.run`."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    if rank == 0:
        mailbox.start()
    parts = assignment.config.count_parts(threads, workers)
    set_up_tensorflow(assignment.config, threads, parts)
    watchdog = Watchdog(mailbox, addresses, rank, assignment.config.stall_timeout)
    with watchdog.running(), forward_log(mailbox):
        # A single worker uses the default strategy, which needs no collectives.
        strategy = tf.distribute.get_strategy()
        if workers > 1:
            watchdog.gather()
            with watchdog.connecting():
                strategy = tf.distribute.MultiWorkerMirroredStrategy()
        return TrainingLoop(
            *(assignment, strategy, rank, workers),
            track=mailbox.set_history,
            barrier=watchdog.barrier,
            parts=parts,
            may_grow=mailbox.may_grow,
        ).run()


def find_gpus(config: TrainConfig) -> list[Any]:
    """Return the GPUs that this process trains on; none without --use-gpu.

    Raises:
        InputError: no GPU can be used.
    """
    return find_tensorflow_gpus() if config.use_gpu else []


def set_up_tensorflow(config: TrainConfig, threads: int = 0, parts: int = 1) -> None:
    """Set the threads, precision and determinism of this process, before it first uses TensorFlow.

    Args:
        config: the configuration of the run.
        threads: the number of cores to compute on; 0 leaves it to TensorFlow.
        parts: the number of micro-batches (`segray.training.step.parts`).

    Raises:
        InputError: there is no GPU to use, or TensorFlow was used before with other devices or
            threads.
    """
    import keras

    gpus = find_gpus(config)
    try:
        if threads:
            # With one micro-batch per core, a layer needs a single core.
            tf.config.threading.set_intra_op_parallelism_threads(1 if parts == threads else threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        # TensorFlow would allocate all the memory of a GPU that was not assigned to it; of an
        # assigned GPU it allocates what it needs.
        tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise InputError(
            "TensorFlow has run in this process before, on other devices or threads: train in a "
            "new process, or take --workers 1"
        ) from error
    if not gpus:
        # On a CPU this has no measurable cost.
        tf.config.experimental.enable_op_determinism()
    precision = config.precision
    if precision == "auto":
        capable = [
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0,))[0] >= 8
            for gpu in gpus
        ]
        precision = "mixed_bfloat16" if gpus and all(capable) else "float32"
    keras.config.set_dtype_policy(precision)

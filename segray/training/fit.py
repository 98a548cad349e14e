"""Fitting: the training loop in processes of Ray Train, or in this one."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import ray
import ray.train
from ray._private.state import available_resources_per_node
from ray.exceptions import RayError
from ray.train.tensorflow import TensorflowTrainer

from segray.errors import InputError
from segray.model.bundle import has_bundle
from segray.storage.uri import file_system, is_local, join_uri
from segray.ticker import ticking
from segray.training.config import TrainConfig
from segray.training.loop import Assignment, TrainingLoop
from segray.training.messages import relay_messages
from segray.training.tracking import History
from segray.training.worker import set_up_tensorflow, train_worker

# How long the CPUs of a task that has just ended may seem to be taken.
_SECONDS_TO_SETTLE = 5.0
_SECONDS_BETWEEN_WAITING_REPORTS = 30.0


def _worker_cpus(config: TrainConfig) -> tuple[float, int]:
    """How many CPUs a worker asks Ray for, and how many threads it computes with (0: its pick)."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    if config.use_gpu or not any(nodes):
        return 1.0, 0
    # Where others have left too little, the workers wait for as much as if they were alone.
    for free in (_free_cpus(), nodes):
        for cpus in range(int(max(free)), 0, -1):
            if sum(node // cpus for node in free) >= config.workers:
                return float(cpus), cpus
    # More workers than CPUs: each gets an equal part of one, rounded down so that all fit.
    parts = next(n for n in count(2) if sum(int(node * n) for node in nodes) >= config.workers)
    return math.floor(10_000 / parts) / 10_000, 1


def _free_cpus() -> list[float]:
    """The CPUs of each node that nobody holds."""
    free: dict[str, float] = {}
    deadline = time.monotonic() + _SECONDS_TO_SETTLE
    while time.monotonic() < deadline:
        for node, resources in available_resources_per_node().items():
            free[node] = max(free.get(node, 0.0), resources.get("CPU", 0.0))
        if sum(free.values()) >= ray.cluster_resources().get("CPU", 0.0):
            break
        time.sleep(0.2)
    return list(free.values()) or [0.0]


def _report_waiting(workers: int, resources: dict[str, float], tell: Callable[[str], None]) -> None:
    """Where Ray has no room for the workers, say what they ask for."""
    asked = [resources] * workers
    # What cannot be told now is told the next time.
    with contextlib.suppress(RayError):
        groups = ray.util.placement_group_table().values()
        waiting = [group for group in groups if group["state"] == "PENDING"]
        if any([*group["bundles"].values()] == asked for group in waiting):
            free = ray.available_resources()
            tell(
                f"waiting for room for {workers} worker(s) on {_name(resources)} each: "
                f"{_name({kind: free.get(kind, 0.0) for kind in resources})} are free, on all "
                "nodes together"
            )


def _name(resources: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {kind}(s)" for kind, amount in resources.items())


def fit(
    assignment: Assignment, tell: Callable[[str], None], track: Callable[[History], None]
) -> None:
    """Train from where the run's folder stands to the bundle of its best epoch.

    Args:
        assignment: of each worker.
        tell: is called with lines for the user's terminal.
        track: is called after each epoch with the records of all epochs so far.

    Raises:
        InputError: the run cannot go on.
    """
    config = assignment.config
    if not config.workers:
        _train_here(assignment, tell, track)
        return
    cpus, threads = _worker_cpus(config)
    resources = {"CPU": cpus, **({"GPU": 1.0} if config.use_gpu else {})}
    tell(f"starting {config.workers} worker(s) on {_name(resources)} each; it may take a minute")
    with (
        _giving_back_the_keyboard(),
        relay_messages(tell, track) as messages,
        ticking(
            _SECONDS_BETWEEN_WAITING_REPORTS,
            lambda: _report_waiting(config.workers, resources, tell),
        ),
    ):
        settings = {"assignment": assignment, "messages": messages, "threads": threads}
        try:
            _make_trainer(config, assignment.output, resources, settings).fit()
        except SystemExit as stop:
            # How Ray Train ends a run when the keyboard interrupts it.
            raise KeyboardInterrupt from stop
        except ray.train.WorkerGroupError as error:
            for failure in error.worker_failures.values():
                if isinstance(failure, InputError):
                    raise failure from error
            if problem := messages.problem():
                raise InputError(problem) from error
            raise
        if not has_bundle(join_uri(assignment.output, "model")):
            raise InputError(messages.problem() or "the workers ended without a model: run again")


@contextlib.contextmanager
def _giving_back_the_keyboard() -> Iterator[None]:
    """Ray Train takes the keyboard's interruptions, and would keep them when it has ended."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _train_here(
    assignment: Assignment, tell: Callable[[str], None], track: Callable[[History], None]
) -> None:
    """Go through the loop in this process, and leave its precision as it was."""
    import keras
    import tensorflow as tf

    policy = keras.config.dtype_policy()
    try:
        set_up_tensorflow(assignment.config)
        problem = TrainingLoop(assignment, tf.distribute.get_strategy(), 0, 1, tell, track).run()
    finally:
        keras.config.set_dtype_policy(policy)
    if problem:
        raise InputError(problem)


def _make_trainer(
    config: TrainConfig, output: str, resources: dict[str, float], settings: dict[str, Any]
) -> TensorflowTrainer:
    local = is_local(output)
    return TensorflowTrainer(
        train_worker,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.use_gpu,
            resources_per_worker=resources,
        ),
        run_config=ray.train.RunConfig(
            # Ray Train's own state; the run's checkpoints are segray's, one file each.
            name="checkpoints",
            storage_path=output if local else output.removeprefix("s3://"),
            # One S3 client everywhere, so that one environment configures all.
            storage_filesystem=None if local else _arrow_file_system(output),
            failure_config=ray.train.FailureConfig(max_failures=config.max_restarts),
        ),
    )


def _arrow_file_system(uri: str) -> Any:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(file_system(uri)))

"""Fitting: run the training loop in processes of Ray Train, or in this process."""

import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError, RayTaskError
from ray.train.tensorflow import TensorflowTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from segray.errors import InputError
from segray.model.bundle import has_bundle
from segray.nodes import name_resources, reporting_waits
from segray.storage.uri import file_system, is_local, join_uri
from segray.ticker import ticking
from segray.training.config import TrainConfig
from segray.training.control.assignment import Assignment
from segray.training.control.checkpoint import Checkpoints
from segray.training.control.loop import TrainingLoop
from segray.training.control.mailbox import Mailbox, relay_mailbox
from segray.training.control.room import PLACE, asking_for, count_workers, worker_resources
from segray.training.control.worker import set_up_tensorflow, train_worker
from segray.training.outputs.tracking import History

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_GROWTHS = 300.0
_PEER_ERRORS = ("AbortedError", "CancelledError", "DeadlineExceededError", "UnavailableError")


def fit(assignment: Assignment, track: Callable[[History], None]) -> None:
    """Train from the last checkpoint in the run's folder to the bundle of the best epoch.

    Args:
        assignment: the assignment of each worker.
        track: called after each epoch with the records of all epochs so far.

    Raises:
        InputError: the run cannot continue.
    """
    config = assignment.config
    if not config.most_workers:
        _train_here(assignment, track)
        return
    checkpoints = Checkpoints(join_uri(assignment.output, "checkpoints"))
    losses, may_grow_at, grows, waits = 0, -math.inf, False, False
    with relay_mailbox(track) as mailbox:
        while True:
            before = max(checkpoints.epochs(), default=0)
            _restore_examples(assignment)
            if not grows:  # a growing group keeps the size of its workers
                resources, threads = worker_resources(config)
            workers = count_workers(config, resources)
            if not waits:
                log.info(
                    f"starting {workers} worker(s) with {name_resources(resources)} each; it may "
                    "take a minute"
                )
            group = _Group(workers, resources, threads, may_grow_at)
            grows = False
            try:
                grows = _fit_once(assignment, group, mailbox)
            except ray.train.TrainingFailedError as error:
                if waits := _had_no_room(error):
                    continue  # however long it takes
                problem = _find_problem(error, mailbox)
                stands = max(checkpoints.epochs(), default=0) == before
                losses = losses + 1 if stands else 1
                if mailbox.has_ended() or losses > config.max_restarts:
                    raise InputError(problem) from error
                if not mailbox.problem():  # it is printed when the next workers start
                    log.info(f"{problem}: restarting all workers after the last finished epoch")
                continue
            if has_bundle(join_uri(assignment.output, "model")):
                return
            if problem := mailbox.problem():
                raise InputError(problem)
            if not grows:
                raise InputError("the workers ended without a model: run again")
            log.info("there is room for more workers: restarting with them after this epoch")
            # The room may belong to another job by the time it is claimed, so do not restart every
            # epoch.
            may_grow_at = time.monotonic() + _SECONDS_BETWEEN_GROWTHS


@dataclass(frozen=True)
class _Group:
    """A group of workers, which lasts until the next restart.

    Attributes:
        workers: the number of workers.
        resources: the Ray resources that each worker requests.
        threads: the number of compute threads of each worker.
        may_grow_at: the time, by the monotonic clock, before which the group does not look for more
            workers.
    """

    workers: int
    resources: dict[str, float]
    threads: int
    may_grow_at: float


def _restore_examples(assignment: Assignment) -> None:
    """Have Ray decode those examples again that were lost with a node, while CPUs are free for it.

    Later the workers occupy the CPUs, and would wait for the examples in vain.

    Raises:
        InputError: the files are not visible on a node that decodes.
    """
    lost = assignment.train.lost() + assignment.validation.lost()
    with reporting_waits("decoding", {"CPU": 1.0}, lambda: bool(lost)):
        while lost:
            try:
                ray.get(lost[-1])
            except RayTaskError as error:
                raise error.cause from None
            lost.pop()


def _fit_once(assignment: Assignment, group: _Group, mailbox: Mailbox) -> bool:
    """Train with a group of workers until they end; return True if they were told that more fit.

    Raises:
        TrainingFailedError: a worker failed or was lost, or there is no room for the group.
    """
    config = assignment.config
    mailbox.reset()
    more = config.most_workers - group.workers
    count_places: Callable[[], int] | None = None
    may_grow = were_told = False

    def look() -> None:
        nonlocal count_places, may_grow, were_told
        if time.monotonic() < group.may_grow_at:
            return
        with contextlib.suppress(RayError):
            # Not earlier: the requests would take the places of the workers that are about to
            # start.
            if count_places is None and mailbox.has_begun():
                count_places = places.enter_context(asking_for(group.resources, more))
            if count_places and may_grow != bool(count_places()):
                mailbox.set_may_grow(not may_grow)
                may_grow = not may_grow
                were_told = were_told or may_grow

    def is_waiting() -> bool:
        return not mailbox.has_begun() and _has_pending(group)

    what = f"{group.workers} worker(s)"
    settings = {"assignment": assignment, "mailbox": mailbox, "threads": group.threads}
    with (
        contextlib.ExitStack() as places,
        ticking(_SECONDS_BETWEEN_LOOKS, look) if more else contextlib.nullcontext(),
        reporting_waits(what, group.resources, is_waiting),
        _giving_back_the_keyboard(),
    ):
        try:
            _make_trainer(config, group, assignment.output, settings).fit()
        except SystemExit as stop:
            # Ray Train turns a KeyboardInterrupt into SystemExit.
            raise KeyboardInterrupt from stop
    return were_told


def _has_pending(group: _Group) -> bool:
    """Return True while Ray has no room for the group."""
    asked = [group.resources] * group.workers
    groups = ray.util.placement_group_table().values()
    waiting = [g for g in groups if g["state"] == "PENDING" and not g["name"].startswith(PLACE)]
    return any([*g["bundles"].values()] == asked for g in waiting)


def _had_no_room(error: ray.train.TrainingFailedError) -> bool:
    """Return True if the workers did not start because their room was taken."""
    return isinstance(error, ray.train.ControllerError) and isinstance(
        error.controller_failure, WorkerGroupStartupTimeoutError
    )


def _find_problem(error: ray.train.TrainingFailedError, mailbox: Mailbox) -> str:
    """Return the reason why the workers ended, on one line."""
    failures = getattr(error, "worker_failures", {}).values()
    for failure in failures:
        if isinstance(failure, InputError):
            return str(failure)
    if problem := mailbox.problem():
        return problem
    for failure in failures:
        # Errors of Ray itself mean that a process or a node is gone. So do the errors that
        # TensorFlow raises in workers that wait for a lost one.
        kind = type(failure)
        if not kind.__module__.startswith("ray.") and kind.__name__ not in _PEER_ERRORS:
            return _on_one_line(f"a worker failed ({kind.__name__}: {failure})")
    if isinstance(error, ray.train.ControllerError):
        failure = error.controller_failure
        return _on_one_line(f"the workers do not start ({type(failure).__name__}: {failure})")
    return "a worker was lost"


def _on_one_line(problem: str) -> str:
    return " ".join(problem.split())[:500]


@contextlib.contextmanager
def _giving_back_the_keyboard() -> Iterator[None]:
    """Restore the handler of SIGINT, which Ray Train replaces and does not restore."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _train_here(assignment: Assignment, track: Callable[[History], None]) -> None:
    """Run the training loop in this process, and restore Keras' dtype policy afterwards."""
    import keras
    import tensorflow as tf

    policy = keras.config.dtype_policy()
    try:
        set_up_tensorflow(assignment.config)
        problem = TrainingLoop(assignment, tf.distribute.get_strategy(), 0, 1, track).run()
    finally:
        keras.config.set_dtype_policy(policy)
    if problem:
        raise InputError(problem)


def _make_trainer(
    config: TrainConfig, group: _Group, output: str, settings: dict[str, Any]
) -> TensorflowTrainer:
    local = is_local(output)
    return TensorflowTrainer(
        train_worker,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=group.workers,
            use_gpu=config.use_gpu,
            resources_per_worker=group.resources,
        ),
        run_config=ray.train.RunConfig(
            # Ray Train keeps its own state here. The checkpoints of the run are segray's, one file
            # each.
            name="checkpoints",
            storage_path=output if local else output.removeprefix("s3://"),
            # One S3 client everywhere, so that one environment configures all of it.
            storage_filesystem=None if local else _arrow_file_system(output),
            # `fit` decides itself how many workers continue after a failure.
            failure_config=ray.train.FailureConfig(
                max_failures=0,
                max_preemption_failures=0,
                controller_failure_limit=0,
            ),
        ),
    )


def _arrow_file_system(uri: str) -> Any:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(file_system(uri)))

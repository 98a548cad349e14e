"""A pool of predictors on GPUs, for workers on all CPUs of a cluster.

A worker's batch travels through Ray's object store, uint8, and its logits come back, float32. The
pool of predictors lives in the job's own process, beside the pipeline: it asks for one more as long
as all are busy, and drops those that die. Workers find the predictors on a board.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import (
    RayActorError,
    RayError,
)

from segray.bulk.remote_predictor import Board, RemotePredictor
from segray.errors import InputError
from segray.model.predictor import Predictor
from segray.ticker import ticking

# Batches that a predictor has in hand at once, so that the next ones arrive, and the last ones are
# sent, while the GPU works on one.
_BATCHES_AT_ONCE = 4

# One more predictor is asked for when those that are there were busy for this share of so many
# seconds.
_BUSY = 0.8
_WINDOW_SECONDS = 10.0
# When this many have died in a row before a batch was done, the pool gives up.
_DEATHS = 3

# Seconds between two looks of the pool, and of whoever waits for its first predictor; and those
# that an answer may take.
_LOOK_SECONDS = 1.0
_WAIT_SECONDS = 0.5
_ANSWER_SECONDS = 30.0


class _GpuActor:
    """The network in a process that holds a GPU.

    Args:
        load: loads it.
    """

    def __init__(self, load: Callable[[], Predictor]) -> None:
        self._problem = ""
        try:
            self._predictor = load()
        except InputError as error:
            # An exception would reach the pool without its cause.
            self._problem = str(error)
        self._lock = Lock()
        self._running, self._since, self._busy, self._done = 0, 0.0, 0.0, 0

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """images uint8 [B, H, W, 3] RGB -> logits float32 [B, H, W, C]."""
        with self._lock:
            if not self._running:
                self._since = time.monotonic()
            self._running += 1
        try:
            return self._predictor.predict(images)
        finally:
            with self._lock:
                self._running -= 1
                self._done += 1
                if not self._running:
                    self._busy += time.monotonic() - self._since

    @ray.method(concurrency_group="questions")
    def problem(self) -> str:
        """The reason why it cannot predict; empty if it can."""
        return self._problem

    @ray.method(concurrency_group="questions")
    def work(self) -> tuple[float, int]:
        """The seconds that it has predicted so far, and the number of batches done."""
        with self._lock:
            running = time.monotonic() - self._since if self._running else 0.0
            return self._busy + running, self._done


class GpuPool:
    """The predictors of a run, each with a GPU: one at first, more while all are busy.

    Args:
        load: loads the network in a process that has a GPU.
        most: largest number of predictors.
    """

    def __init__(self, load: Callable[[], Predictor], most: int) -> None:
        self._most = most
        self._new = ray.remote(
            num_gpus=1,
            # Workers may hold all CPUs of its node, and must not keep it away.
            num_cpus=0,
            max_concurrency=_BATCHES_AT_ONCE,
            concurrency_groups={"questions": 1},
        )(_GpuActor).remote
        self._load = ray.put(load)
        self._board = ray.remote(num_cpus=0, max_restarts=-1)(Board).remote()
        self._pending: tuple[Any, Any] | None = None  # a predictor, and its answer once it is ready
        # For each predictor, moments of the window and the seconds that it was busy until then.
        self._busy: dict[Any, deque[tuple[float, float]]] = {}
        self._deaths = 0
        self._problem = ""

    def is_ready(self) -> bool:
        """True once there is a predictor."""
        return bool(self._busy)

    def await_ready(self) -> None:
        """Wait until there is a predictor.

        Raises:
            InputError: a GPU cannot be used.
        """
        while not self.is_ready():
            if self._problem:
                raise InputError(self._problem)
            time.sleep(_WAIT_SECONDS)

    def connect(self) -> RemotePredictor:
        """The predictor of a worker, which sends its batches to the pool."""
        return RemotePredictor(self._board)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Keep the pool while a block runs."""
        self._look()
        try:
            with ticking(_LOOK_SECONDS, self._look):
                yield
        finally:
            for predictor in [*self._busy, *(self._pending or ())[:1]]:
                ray.kill(predictor)

    def _look(self) -> None:
        # A cluster that is restarting a part of itself answers the next time.
        with contextlib.suppress(RayError):
            self._welcome()
            self._ask_all()
        wanted = not self._busy or self._all_busy()
        if wanted and not self._pending and not self._problem and len(self._busy) < self._most:
            predictor = self._new(self._load)
            self._pending = predictor, predictor.problem.remote()
        # Each time: a board that was lost with its node begins anew.
        self._board.put.remote(list(self._busy), self._problem)

    def _welcome(self) -> None:
        """Take the predictor that is asked for into the pool when it is ready."""
        if not self._pending:
            return
        predictor, answer = self._pending
        if not ray.wait([answer], timeout=0)[0]:
            return
        self._pending = None
        try:
            self._problem = ray.get(answer, timeout=_ANSWER_SECONDS)
        except RayActorError as error:
            self._note_death(error)
        else:
            if self._problem:
                ray.kill(predictor)  # what is dropped may keep its GPU for a while
            else:
                self._busy[predictor] = deque()

    def _ask_all(self) -> None:
        """Note how busy the predictors are, and drop those that have died."""
        answers = {predictor: predictor.work.remote() for predictor in self._busy}
        for predictor, answer in answers.items():
            try:
                moments = self._busy[predictor]
                seconds, done = ray.get(answer, timeout=_ANSWER_SECONDS)
                moments.append((time.monotonic(), seconds))
                while moments[-1][0] - moments[0][0] > _WINDOW_SECONDS + _LOOK_SECONDS:
                    moments.popleft()
                if done:
                    self._deaths = 0
            except RayActorError as error:
                self._note_death(error)
                del self._busy[predictor]
                # One that is out of reach would go on holding its GPU.
                ray.kill(predictor)

    def _note_death(self, error: RayActorError) -> None:
        self._deaths += 1
        if self._deaths == _DEATHS:
            reason = " ".join(str(error).split())[:300]
            self._problem = f"predictors on GPUs end before a batch is done: {reason}"

    def _all_busy(self) -> bool:
        window = busy = 0.0
        for moments in self._busy.values():
            if not moments or moments[-1][0] - moments[0][0] < _WINDOW_SECONDS:
                return False
            window += moments[-1][0] - moments[0][0]
            busy += moments[-1][1] - moments[0][1]
        return busy > _BUSY * window

"""A predictor whose network is in other processes, each of which holds a GPU."""

import contextlib
import time
from collections import Counter
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, ObjectLostError, RayActorError

from segray.errors import InputError

# Seconds between two looks at the board, with a predictor at hand and without one; and those that
# its answer may take.
_REFRESH_SECONDS = 3.0
_WAIT_SECONDS = 0.5
_ANSWER_SECONDS = 30.0


class Board:
    """An actor that tells workers the predictors that are ready, or why there will be none."""

    def __init__(self) -> None:
        self._notice: tuple[list[Any], str] = [], ""

    def put(self, predictors: list[Any], problem: str) -> None:
        self._notice = predictors, problem

    def look(self) -> tuple[list[Any], str]:
        return self._notice


class RemotePredictor:
    """The network on the GPUs of a cluster; any number of threads may call it.

    Args:
        board: the actor that knows the predictors.
    """

    def __init__(self, board: Any) -> None:
        self._board = board
        self._lock = Lock()
        self._predictors: list[Any] = []
        self._in_flight: Counter[Any] = Counter()
        self._lost: set[Any] = set()
        self._looked = float("-inf")

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """images uint8 [B, H, W, 3] RGB -> logits float32 [B, H, W, C], not to be written to.

        Waits while there is no predictor.

        Raises:
            InputError: a GPU cannot be used.
        """
        while True:
            predictor = self._take()
            if predictor is None:
                time.sleep(_WAIT_SECONDS)
                continue
            try:
                logits: npt.NDArray[np.float32] = ray.get(predictor.predict.remote(images))
                return logits
            except (RayActorError, ObjectLostError):
                self._lost.add(predictor)  # another one does it, or the same one later
                time.sleep(_WAIT_SECONDS)
            finally:
                with self._lock:
                    self._in_flight[predictor] -= 1

    def _take(self) -> Any:
        """The predictor that has the fewest batches of this process; None if there is none."""
        with self._lock:
            known = [one for one in self._predictors if one not in self._lost]
            if not known or time.monotonic() - self._looked > _REFRESH_SECONDS:
                self._refresh()
                known = [one for one in self._predictors if one not in self._lost]
            if not known:
                return None
            predictor = min(known, key=lambda one: self._in_flight[one])
            self._in_flight[predictor] += 1
            return predictor

    def _refresh(self) -> None:
        # A board that is being started anew is looked at again; the predictors may be there all the
        # same.
        with contextlib.suppress(ActorUnavailableError, GetTimeoutError):
            self._predictors, problem = ray.get(self._board.look.remote(), timeout=_ANSWER_SECONDS)
            if problem:
                raise InputError(problem)
            # A predictor that could not be reached may be by now; a dead one has left the board.
            self._lost.clear()
        self._looked = time.monotonic()

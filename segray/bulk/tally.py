"""The tally: adds up the reports of all processes of a run."""

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from segray.bulk.manifest import Found

#: The counts of a chunk: ``segmented``, ``failed``, ``bytes`` and ``retries``.
Counts = dict[str, int]


def process_name() -> str:
    """The name of this process on a cluster, host:pid."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Reporter(Protocol):
    """Takes reports; each one replaces the last one of the same name."""

    def found(self, part: int, found: Found) -> None:
        """Report the counts of a part of the search so far."""
        ...

    def done(self, chunk: str, predictor: str, counts: Counts, last: bool = False) -> None:
        """Report the counts of a chunk so far, and the name of the process that works on it.

        The last report of a chunk has arrived when this returns.
        """
        ...


class Tally:
    """Adds up reports. A part that is done twice, as after a lost worker, counts once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[int, dict[str, int]] = {}
        self._done: dict[str, tuple[str, Counts]] = {}
        self._requests: dict[str, Counter[str]] = {}

    def found(self, part: int, found: Found) -> None:
        with self._lock:
            self._found[part] = dict(vars(found))

    def done(self, chunk: str, predictor: str, counts: Counts, last: bool = False) -> None:
        with self._lock:
            self._done[chunk] = predictor, dict(counts)

    def note_requests(self, process: str, requests: Counter[str]) -> None:
        """Note the requests that a process has sent so far; they replace those noted before."""
        with self._lock:
            self._requests[process] = requests

    def requests(self) -> Counter[str]:
        """The requests of all processes, see `segray.storage.requests`."""
        with self._lock:
            return sum(self._requests.values(), Counter())

    def totals(self) -> dict[str, int]:
        """The sums over all parts and chunks, by the names of their counts; and ``chunks``."""
        totals = dict.fromkeys((*vars(Found()), "segmented", "failed", "bytes", "retries"), 0)
        with self._lock:
            totals["chunks"] = len(self._done)
            for counts in (*self._found.values(), *(counts for _, counts in self._done.values())):
                for name, count in counts.items():
                    totals[name] += count
        return totals

    def predictors(self) -> dict[str, int]:
        """The number of images that each process has segmented or failed, by its name.

        A chunk counts for the process that finished it.
        """
        images: Counter[str] = Counter()
        with self._lock:
            for predictor, counts in self._done.values():
                images[predictor] += counts["segmented"] + counts["failed"]
        return dict(images)


Totals = Callable[[], dict[str, int]]

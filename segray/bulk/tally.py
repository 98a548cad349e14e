"""The tally: adds up the reports of all processes of a run."""

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from segray.bulk.manifest import Found

#: The counts of a chunk: ``segmented``, ``failed``, ``bytes`` and ``retries``.
Counts = dict[str, int]


def process_name() -> str:
    """The name of this process on a cluster, host:pid."""
    return f"{socket.gethostname()}:{os.getpid()}"


# After so many processes that died with an image alone in hand, it is the image's fault.
_DEATHS = 2


@dataclass(frozen=True)
class Attempt:
    """An attempt to do a chunk, which is one of several if processes die with it.

    Attributes:
        number: 1 for the first.
        deadly: the ids of images that processes died with, as often as it takes to blame them.
    """

    number: int
    deadly: frozenset[int]


class Reporter(Protocol):
    """Takes reports; each one replaces the last one of the same name."""

    def begin(self, chunk: str) -> Attempt:
        """Report that a process begins a chunk."""
        ...

    def hold_alone(self, chunk: str, id: int) -> None:
        """Report that a process has one image of a chunk in hand, and no other.

        The report has arrived when this returns.
        """
        ...

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
        self._begun: Counter[str] = Counter()
        self._alone: dict[str, int] = {}
        self._deaths: Counter[int] = Counter()
        self._requests: dict[str, Counter[str]] = {}

    def found(self, part: int, found: Found) -> None:
        with self._lock:
            self._found[part] = dict(vars(found))

    def begin(self, chunk: str) -> Attempt:
        with self._lock:
            self._begun[chunk] += 1
            if chunk in self._alone:  # the process before died with it
                self._deaths[self._alone.pop(chunk)] += 1
            deadly = frozenset(id for id, deaths in self._deaths.items() if deaths >= _DEATHS)
            return Attempt(self._begun[chunk], deadly)

    def hold_alone(self, chunk: str, id: int) -> None:
        with self._lock:
            self._alone[chunk] = id

    def done(self, chunk: str, predictor: str, counts: Counts, last: bool = False) -> None:
        with self._lock:
            self._done[chunk] = predictor, dict(counts)
            if last:
                self._alone.pop(chunk, None)

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

"""The progress of a segmentation, in lines for a terminal and for a job's log alike."""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from segray.bulk.tally import Tally, Totals
from segray.progress import format_time
from segray.ticker import ticking

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 5.0
# The rate, and the time left by it, are averages over this many seconds.
_WINDOW_SECONDS = 30.0
# Moments in a timeline, at most.
_MOMENTS = 400


@dataclass(frozen=True)
class Moment:
    """The progress of a run at one moment.

    Attributes:
        seconds: time since its start.
        segmented: images segmented in this run.
        failed: images that failed in this run.
        bytes: size of the files of both.
    """

    seconds: float
    segmented: int
    failed: int
    bytes: int


class Progress:
    """Polls a tally every second, tells the progress every five, and keeps a timeline.

    Args:
        totals: returns the counts of the tally.
        total: number of images to do; None if it is not known yet.
        is_ready: returns whether there is a network for the chunks that are begun.

    Attributes:
        timeline: moments of the run, evenly spread.
        predictors: number of images of each process, by host:pid; known at the end.
        requests: requests to S3 of other processes than this one, see `segray.storage.requests`;
            known at the end.
    """

    def __init__(
        self,
        totals: Totals,
        total: int | None,
        is_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._totals, self._total, self._is_ready = totals, total, is_ready
        self._counts = Tally().totals()  # of nothing, until the tally answers
        self._started = time.monotonic()
        self._every = 1
        self._looks = 0
        self.timeline: list[Moment] = [Moment(0.0, 0, 0, 0)]
        self.predictors: dict[str, int] = {}
        self.requests: Counter[str] = Counter()
        self._recent: list[Moment] = self.timeline[:]
        self._said = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Tell the progress while a block runs, once work has begun, and once more at its end."""
        spoken = time.monotonic()

        def watch() -> None:
            nonlocal spoken
            self._look()
            due = time.monotonic() - spoken >= _SECONDS_BETWEEN_LINES
            if due and self.begun and self._is_ready():
                spoken = time.monotonic()
                self._say()

        with ticking(1.0, watch):
            yield
        self._look(last=True)
        if self._said != self._done(self.timeline[-1]):
            self._say()

    @property
    def begun(self) -> bool:
        """True once a chunk has been begun."""
        return self._counts["chunks"] > 0

    @property
    def left(self) -> int:
        """Number of images that are known to be missing and have no row yet."""
        counts = self._counts
        known = counts["missing"] if self._total is None else self._total
        return known - counts["segmented"] - counts["failed"]

    def _look(self, last: bool = False) -> None:
        # A tally in another process may have no worker yet, or be lost with its node.
        with contextlib.suppress(Exception):
            self._counts = self._totals()
        counts = self._counts
        moment = Moment(
            round(time.monotonic() - self._started, 3),
            counts["segmented"],
            counts["failed"],
            counts["bytes"],
        )
        self._recent.append(moment)
        while moment.seconds - self._recent[0].seconds > _WINDOW_SECONDS:
            self._recent.pop(0)
        self._looks += 1
        if last or self._looks % self._every == 0:
            self.timeline.append(moment)
        if len(self.timeline) > _MOMENTS:
            self.timeline = self.timeline[::2]
            self._every *= 2

    def _say(self) -> None:
        now, before = self._recent[-1], self._recent[0]
        done = self._said = self._done(now)
        seconds = max(now.seconds - before.seconds, 1e-3)
        rate = (done - self._done(before)) / seconds
        megabytes = (now.bytes - before.bytes) / 1e6 / seconds
        total = self._total
        if total is None:
            listed = self._counts["missing"]
            of = f"{done} of {listed} images found so far"
            left = ""
        else:
            of = f"{done}/{total} images"
            left = f", {format_time((total - done) / rate)} left" if rate and done < total else ""
        retries = self._counts["retries"]
        tried_again = f", {retries} requests tried again" if retries else ""
        log.info(
            f"{of}, {now.failed} failed, {rate:.1f} images/s, {megabytes:.1f} MB/s{left}"
            f"{tried_again}"
        )

    @staticmethod
    def _done(moment: Moment) -> int:
        return moment.segmented + moment.failed

"""Progress: lines about the progress of counted work, for a terminal and for a job's log."""

import logging
import time

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class ProgressLine:
    """Counts finished work, and prints a line every ten seconds.

    Args:
        what: the kind of work, the first word of each line.
        unit: the unit of the numbers, such as MB.
        total: the total number; None if unknown.
        scale: the number of items of `add` in one unit.
        done: the number done before; not part of the rate.

    Attributes:
        done: the number done.
        failed: the number of those that failed.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        total: int | None,
        *,
        scale: float = 1.0,
        done: int = 0,
    ) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._scale, self._before, self.done = scale, done, done
        self._started = self._told = time.monotonic()
        self.failed = 0

    def add(self, count: int, failed: int = 0) -> None:
        """Count items that were just finished, and how many of them failed."""
        self.done += count
        self.failed += failed
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            self._say(now - self._started)

    def _say(self, seconds: float) -> None:
        rate = max((self.done - self._before) / max(seconds, 1e-3), 1e-9)
        done = f"{self.done / self._scale:.0f}"
        if self._total is not None:
            done += f" of {self._total / self._scale:.0f}"
        parts = [f"{self._what}: {done} {self._unit}"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{rate / self._scale:.1f} {self._unit}/s")
        if self._total is not None:
            parts.append(f"{format_time((self._total - self.done) / rate)} left")
        log.info(", ".join(parts))


def format_time(seconds: float) -> str:
    """Format a duration for a person."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

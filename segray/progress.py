"""Progress: how far counted work has come, in lines for a terminal and for a job's log alike."""

import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 10.0


class ProgressLine:
    """Counts what is done, and says so every ten seconds.

    Args:
        what: is counted, the first word of each line.
        unit: of the figures, such as MB.
        total: how many there are in all; None if that is not known.
        tell: is called with each line.
        scale: how many of what `add` counts make one unit.
        done: how many are done before it starts; they count for no rate.

    Attributes:
        done: how many are done.
        failed: how many of those that are done have failed.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        total: int | None,
        tell: Callable[[str], None],
        *,
        scale: float = 1.0,
        done: int = 0,
    ) -> None:
        self._what, self._unit, self._total, self._tell = what, unit, total, tell
        self._scale, self._before, self.done = scale, done, done
        self._started = self._told = time.monotonic()
        self.failed = 0

    def add(self, count: int, failed: int = 0) -> None:
        """Count what was just done, and how many of those have failed."""
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
        self._tell(", ".join(parts))


def format_time(seconds: float) -> str:
    """A duration for a person."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

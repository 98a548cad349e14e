"""Progress: how far a download or an unpacking has come, in lines for a terminal or a log."""

import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 10.0


class ProgressLine:
    """Counts what is done, and says so every ten seconds.

    Args:
        what: is counted, the first word of each line.
        unit: of the figures, such as MB.
        scale: how many of what `add` counts make one unit.
        done: how many are done before it starts; they count for no rate.
        total: how many there are in all; None if that is not known.
        tell: is called with each line.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        scale: float,
        done: int,
        total: int | None,
        tell: Callable[[str], None],
    ) -> None:
        self._what, self._unit, self._scale = what, unit, scale
        self._before, self._done, self._total, self._tell = done, done, total, tell
        self._started = self._told = time.monotonic()

    def add(self, count: int) -> None:
        """Count what was just done."""
        self._done += count
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            self._say(now - self._started)

    def _say(self, seconds: float) -> None:
        rate = max((self._done - self._before) / max(seconds, 1e-3), 1e-9)
        speed = f"{rate / self._scale:.1f} {self._unit}/s"
        done = f"{self._done / self._scale:.0f}"
        if self._total is None:
            self._tell(f"{self._what}: {done} {self._unit}, {speed}")
            return
        left = (self._total - self._done) / rate
        self._tell(
            f"{self._what}: {done} of {self._total / self._scale:.0f} {self._unit}, {speed}, "
            f"{left / 60:.1f} min left"
        )

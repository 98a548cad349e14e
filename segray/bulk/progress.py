"""Progress: how far a segmentation has come, in lines for a terminal and for a job's log alike."""

import time
from collections.abc import Callable

_SECONDS_BETWEEN_LINES = 5.0


class ProgressLine:
    """Counts what is done, and says so every few seconds.

    Args:
        total: images to do.
        tell: is called with each line.
    """

    def __init__(self, total: int, tell: Callable[[str], None]) -> None:
        self._total, self._tell = total, tell
        self._segmented = self._failed = self._bytes = self._said = 0
        self._started = self._told = time.monotonic()

    def add(self, segmented: int, failed: int, bytes: int) -> None:
        """Count a written batch: images of each kind, and the bytes of their files."""
        self._segmented += segmented
        self._failed += failed
        self._bytes += bytes
        if time.monotonic() - self._told > _SECONDS_BETWEEN_LINES:
            self._say()

    def finish(self) -> None:
        """Say what all came to, unless the last line did."""
        if self._said != self._segmented + self._failed:
            self._say()

    def _say(self) -> None:
        self._told = time.monotonic()
        seconds = max(self._told - self._started, 1e-3)
        done = self._said = self._segmented + self._failed
        left = (self._total - done) / done * seconds if done else 0
        self._tell(
            f"{done}/{self._total} images, {self._failed} failed, {done / seconds:.1f} images/s, "
            f"{self._bytes / 1e6 / seconds:.1f} MB/s, {left / 60:.1f} min left"
        )

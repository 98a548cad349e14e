"""Progress: what is told of a run."""

import time

import pytest

from segray.bulk.progress import Progress
from segray.bulk.tally import Tally


def test_a_tally_that_does_not_answer_yet_is_waited_for(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that keeps it may take longer to start than the first line."""
    monkeypatch.setattr("segray.bulk.progress._SECONDS_BETWEEN_LINES", 1.5)
    tally, answers = Tally(), []

    def totals() -> dict[str, int]:
        if not answers:
            raise TimeoutError("no worker yet")
        return tally.totals()

    progress = Progress(totals, 10)
    with progress.running():
        time.sleep(2.5)
        tally.done(
            "chunk", "host:1", {"segmented": 3, "failed": 1, "bytes": 5_000_000, "retries": 2}
        )
        answers.append(True)
        time.sleep(1.5)

    assert lines[0].startswith("4/10 images, 1 failed")
    assert lines[-1].startswith("4/10 images, 1 failed")
    assert "2 requests tried again" in lines[-1]


def test_a_tally_that_is_lost_ends_no_run() -> None:
    def totals() -> dict[str, int]:
        raise ConnectionError("its node is gone")

    progress = Progress(totals, None)
    with progress.running():
        pass
    assert progress.timeline[-1].segmented == 0

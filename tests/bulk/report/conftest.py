"""The fixtures of the tests of reports."""

from pathlib import Path

import pytest

from segray.pixels.labels import Labels
from tests.bulk.report.outputs import Output


@pytest.fixture
def output(tmp_path: Path, labels: Labels) -> Output:
    return Output(str(tmp_path / "output"), labels)

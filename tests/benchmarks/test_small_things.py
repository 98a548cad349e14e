"""The benchmark of small things in large images, at its smallest."""

import pytest

from tests.benchmarks import run_benchmark


@pytest.mark.slow
def test_each_way_has_a_row() -> None:
    flags = ["--scenes", "2", "--sizes", "64", "--window", "64", "--epochs", "1", "1"]
    output = run_benchmark("small_things.py", "--side", "256", *flags)
    *rows, seam = [line.split() for line in output.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["squash", "64"], ["windows", "64"]]
    assert 0 < float(rows[0][2]) < 1
    assert float(rows[1][2]) == 1
    assert all(0 <= float(score.rstrip(",")) <= 1 for score in (seam[4], seam[6]))

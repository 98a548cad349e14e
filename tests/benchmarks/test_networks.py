"""The benchmark of networks, at its smallest."""

import pytest

from tests.benchmarks import run_benchmark


@pytest.mark.slow
def test_each_network_has_a_line() -> None:
    encoders = ("MobileNetV2-0.35", "MobileNetV3Large")
    flags = ["--rounds", "1", "--seconds", "0.1", "--batch-size", "2", "--size", "32"]
    output = run_benchmark("networks.py", "--encoders", *encoders, *flags)
    rows = [line.split() for line in output.splitlines()[2:]]
    assert [row[:2] for row in rows] == [[e, d] for e in encoders for d in ("slim", "tutorial")]
    multiplications = [float(row[4]) for row in rows]
    assert multiplications[0] < 0.55 * multiplications[1]

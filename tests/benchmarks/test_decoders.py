"""The benchmark of decoders, at its smallest."""

import pytest

from segray.model.architecture import DECODERS
from tests.benchmarks import run_benchmark


@pytest.mark.slow
def test_each_decoder_has_a_line() -> None:
    flags = ["--rounds", "1", "--seconds", "0.1", "--batch-size", "2"]
    output = run_benchmark("decoders.py", "--sizes", "32", *flags)
    lines = output.splitlines()[1:]
    assert [line.split()[2] for line in lines] == list(DECODERS)
    millions = [float(line.split()[3]) for line in lines]
    assert millions[0] < 0.55 * millions[1]

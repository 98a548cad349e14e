"""The benchmark of decoders, at its smallest."""

import subprocess
import sys
from pathlib import Path

import pytest

from segray.model.architecture import DECODERS

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_each_decoder_has_a_line() -> None:
    result = subprocess.run(
        [
            *(sys.executable, "benchmarks/decoders.py", "--sizes", "32"),
            *("--rounds", "1", "--seconds", "0.1", "--batch-size", "2"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()[1:]
    assert [line.split()[2] for line in lines] == list(DECODERS)
    millions = [float(line.split()[3]) for line in lines]
    assert millions[0] < 0.55 * millions[1]

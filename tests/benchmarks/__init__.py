"""Tests of the benchmarks, each at its smallest."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def run_benchmark(name: str, *flags: str, folder: Path = ROOT) -> str:
    """Run a script of benchmarks/ in a folder, and return what it printed; it has to succeed."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *flags],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout

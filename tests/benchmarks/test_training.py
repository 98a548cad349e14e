"""The benchmark of training, at its smallest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_table_has_a_line_for_each_side(tmp_path: Path) -> None:
    flags = ["--image-size", "32", "--images", "16", "--batch-size", "8", "--epochs", "2"]
    result = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "training.py"), *flags),
            *("--rounds", "1", "--sides", "0", "bare", "halves", "--json", "figures.json"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    first, _, *table = result.stdout.splitlines()
    for part in (" cores; ", "tensorflow ", "32x32", "batch 8", "16 images", "1 round(s)"):
        assert part in first
    figures = json.loads((tmp_path / "figures.json").read_text())
    names = {"0": "segray, --workers 0", "bare": "bare model.fit", "halves": "2 bare fits at once"}
    for (side, name), line in zip(names.items(), table, strict=True):
        [run] = figures["sides"][side]
        assert run["images_per_second"] > 0
        assert line.startswith(name)
        median, least, most, share, waiting = line.removeprefix(name).split()
        assert median == least == most == f"{run['images_per_second']:.2f}"
        assert float(share) > 0
        assert (waiting == "-") == (side != "0")

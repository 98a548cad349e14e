"""The benchmark of training, at its smallest."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import run_benchmark


@pytest.mark.slow
def test_the_table_has_a_line_for_each_side(tmp_path: Path) -> None:
    flags = ["--image-size", "32", "--images", "16", "--batch-size", "8", "--epochs", "2"]
    flags += ["--rounds", "1", "--sides", "0", "bare", "halves", "--json", "figures.json"]
    output = run_benchmark("training.py", *flags, folder=tmp_path)
    first, _, *table = output.splitlines()
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

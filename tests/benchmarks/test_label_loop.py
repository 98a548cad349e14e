"""The benchmark of the label loop, at its smallest."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import run_benchmark
from tests.support import write_shapes


@pytest.mark.slow
def test_each_seed_has_a_row(tmp_path: Path) -> None:
    write_shapes(str(tmp_path), 40)
    sizes = ["--labelled", "8", "--more", "8", "--validation", "4", "--test", "8", "--seeds", "2"]
    output = run_benchmark(
        "label_loop.py",
        *("--images", "images", "--masks", "masks", "--classes", "box=10", "ground=20", *sizes),
        *("--epochs", "1", "--image-size", "32", "--encoder-weights", "none"),
        *("--json", "figures.json"),
        folder=tmp_path,
    )
    rows = [line.split() for line in output.splitlines()[2:]]
    assert [row[0] for row in rows] == ["0", "1", "mean"]
    lines = json.loads((tmp_path / "figures.json").read_text())["lines"]
    for row, line in zip(rows, lines, strict=False):
        assert row[1:4] == [f"{score:.3f}" for score in line]
        assert all(0 <= score <= 1 for score in line)

"""The benchmark of the label loop, at its smallest."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import run_benchmark
from tests.support import write_shapes


@pytest.mark.slow
def test_each_round_has_a_row(tmp_path: Path) -> None:
    write_shapes(str(tmp_path), 40)
    sizes = ["--labelled", "8", "--more", "8", "--validation", "4", "--test", "8", "--seeds", "1"]
    output = run_benchmark(
        "label_loop.py",
        *("--images", "images", "--masks", "masks", "--classes", "box=10", "ground=20", *sizes),
        *("--epochs", "1", "--image-size", "32", "--encoder-weights", "none"),
        *("--rounds", "2", "--continued", "1", "--json", "figures.json"),
        folder=tmp_path,
    )
    rows = [line.split() for line in output.splitlines()[2:]]
    assert [row[:2] for row in rows] == [[name, n] for name in ("0", "mean") for n in "012"]
    [lines] = json.loads((tmp_path / "figures.json").read_text())["lines"]
    for row, scores in zip(rows, lines, strict=False):
        assert row[2:4] == [f"{score:.3f}" for score in scores]
        assert all(0 <= score <= 1 for score in scores)

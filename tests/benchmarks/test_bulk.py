"""The benchmark of bulk segmentation, at its smallest."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import run_benchmark


@pytest.mark.slow
def test_windows_are_compared_with_a_loop_over_them() -> None:
    flags = ["--megapixels", "0.3", "--rounds", "1", "--sides", "segray", "loop"]
    output = run_benchmark("bulk.py", "--fit", "tile", "--count", "4", *flags)
    segray, loop = (line.split() for line in output.splitlines()[2:])
    assert float(segray[-4]) > 0
    assert float(loop[-4]) > 0


@pytest.mark.slow
def test_the_table_has_a_line_for_each_side(tmp_path: Path, bundle_uri: str) -> None:
    sides = ["segray", "tfdata", "onnx"]
    flags = ["--megapixels", "0.01", "--rounds", "1", "--sides", *sides]
    flags += ["--json", str(tmp_path / "figures.json")]
    output = run_benchmark("bulk.py", "--model", bundle_uri, "--count", "70", *flags)
    names = ["segray", "tf.data and pandas", "bare ONNX Runtime"]
    for name, line in zip(names, output.splitlines()[2:], strict=True):
        assert line.startswith(name)
    figures = json.loads((tmp_path / "figures.json").read_text())["sides"]
    for side in sides:
        [run] = figures[side]
        assert run["rate"] > 0
        assert run["memory"] > 0
    for side in ("segray", "tfdata"):
        assert 0 < figures[side][0]["first"] < figures[side][0]["whole"]

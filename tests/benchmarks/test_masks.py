"""The benchmark of masks, at its smallest."""

import json
from pathlib import Path

from tests.benchmarks import run_benchmark


def test_the_table_has_a_line_for_each_size_and_number_of_classes(tmp_path: Path) -> None:
    flags = ["--images", "30x20", "300x200", "--classes", "2", "5", "--repeats", "2"]
    flags += ["--logits", "32", "--json", "figures.json"]
    output = run_benchmark("masks.py", *flags, folder=tmp_path)
    first, _, *table = output.splitlines()
    for part in (" cores; ", "one core used", "numpy ", "32x32", "medians of 2"):
        assert part in first
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    names = [("30x20", 2), ("300x200", 2), ("30x20", 5), ("300x200", 5)]
    for (image, classes), run, line in zip(names, runs, table, strict=True):
        assert (run["image"], run["classes"]) == (image, classes)
        assert all(len(run[name]) == 2 for name in ("segray", "plain", "png"))
        assert min(*run["segray"], *run["plain"], *run["png"]) > 0
        assert 0 < run["undecided"] < 1
        # The same masks, but for what float32 rounds; the same confidences, but for the sampling.
        assert run["differing_pixels"] <= 3
        assert run["confidence_difference"] < 1e-3
        assert line.split()[:2] == [image, str(classes)]

"""The benchmark of drifts, at its smallest."""

import json
from pathlib import Path

from tests.benchmarks import run_benchmark
from tests.support import draw_picture, encode


def test_the_table_has_a_line_for_each_strength_of_a_corruption(
    bundle_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(60):
        content = encode(draw_picture(60, 80, number), "PNG")
        (tmp_path / "images" / f"{number}.png").write_bytes(content)
    flags = ["--images", "images", "--splits", "5", "--json", "figures.json"]
    output = run_benchmark("drift.py", "--model", bundle_uri, *flags, folder=tmp_path)
    lines = json.loads((tmp_path / "figures.json").read_text())["lines"]
    assert len(lines) == len(output.splitlines()[2:]) == 13
    for line, text in zip(lines, output.splitlines()[2:], strict=True):
        assert text.split()[0] == line["corruption"]
        assert f"{line['noticed']:.0%}" in text
    noticed = {(line["corruption"], line["strength"]): line["noticed"] for line in lines}
    assert noticed["clean", 0] <= 0.2
    assert noticed["darkness", 0.25] == 1

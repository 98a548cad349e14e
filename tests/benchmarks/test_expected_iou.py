"""The benchmark of the expected IoU, at its smallest."""

import json
from pathlib import Path

from tests.benchmarks import run_benchmark
from tests.support import draw_picture, encode


def test_the_table_has_a_line_for_each_strength_of_a_corruption(
    bundle_uri: str, tmp_path: Path
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        picture = draw_picture(240, 300, number)
        mask = encode(picture[..., 0] % 3 + 1, "PNG")
        (tmp_path / "images" / f"{number}.png").write_bytes(encode(picture, "PNG"))
        (tmp_path / "masks" / f"{number}.png").write_bytes(mask)
    flags = ["--images", "images", "--masks", "masks", "--json", "figures.json"]
    output = run_benchmark("expected_iou.py", "--model", bundle_uri, *flags, folder=tmp_path)
    table, classes, cost = output.split("\n\n")
    lines = json.loads((tmp_path / "figures.json").read_text())["lines"]
    assert len(lines) == len(table.splitlines()[2:]) == 13
    for line, text in zip(lines, table.splitlines()[2:], strict=True):
        assert text.split()[0] == line["corruption"]
        assert f"{line['expected']:.3f}" in text
        assert len(line["images"]["true"]) == 3
        assert 0 <= line["true"] <= 1
        assert 0 < line["expected"] < 1
    # Clean, and the greatest strength of each corruption.
    assert len({json.dumps(line["images"]["confidence"]) for line in lines[::3]}) == 5
    assert [line.split()[0] for line in classes.splitlines()[1:]] == ["pet", "background", "border"]
    assert float(cost.split()[-1]) > 0

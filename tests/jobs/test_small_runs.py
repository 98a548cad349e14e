"""Jobs on a few images, from their flags to their exit status, in the tests' own process."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segray.storage.files import write_bytes
from segray.storage.listing import list_entries
from segray.storage.tables import read_tables
from tests.jobs.conftest import CallJob
from tests.segmentations import LABELS, draw_mask, make_segmentation
from tests.support import draw_picture, encode


def test_two_segmentations_are_compared(tmp_path: Path, call_job: CallJob) -> None:
    keys = [f"{number}.jpg" for number in range(5)]
    before = make_segmentation(str(tmp_path), keys, name="before")
    after = make_segmentation(str(tmp_path), keys[:4], name="after")
    uri = f"{after.images}/2.jpg"
    after.masks[uri] = draw_mask(*after.masks[uri].shape, seed=900)
    for file in Path(after.uri, "results").iterdir():
        file.unlink()
    after.write_rows(after.entries)

    result = call_job("compare", "--results", "before", "after", "--output", "out", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    pixels = sum(mask.size for mask in after.masks.values())
    share = np.count_nonzero(before.masks[uri] != after.masks[uri]) / pixels
    assert share > 0
    assert f"{share:.2%} of the pixels of 4 images changed" in result.stdout
    assert f"1 images are only in {before.uri}" in result.stdout
    output = tmp_path / "out"
    record = json.loads((output / "comparison.json").read_text())
    assert record["changed"] == pytest.approx(share)
    table = {words[0]: words[1:] for row in result.stdout.splitlines() if (words := row.split())}
    for name in LABELS.names:
        expected = [f"{record[side]['expected_iou'][name]:.3f}" for side in ("before", "after")]
        assert table[name] == [f"{record['agreement'][name]:.3f}", *expected]
    for name in ("compare.html", "comparison.json", "changes"):
        assert f"{output}/{name}" in result.stdout
        assert (output / name).exists()


def test_the_images_most_worth_labelling_are_chosen(tmp_path: Path, call_job: CallJob) -> None:
    made = make_segmentation(str(tmp_path), [f"{number}.png" for number in range(4)])
    for number, (uri, mask) in enumerate(made.masks.items()):
        write_bytes(uri, encode(draw_picture(*mask.shape, number), "PNG"))
        made.expected[uri] = 0.9 - number / 10
    made.list([])
    made.list(list_entries(made.images))
    made.write_rows(made.entries)

    flags = ["--results", "segmented", "--output", "out", "--count", "2", "--format", "cvat"]
    result = call_job("review", *flags, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "chose 2 images of the 2 that were wanted" in result.stdout
    assert "with an expected IoU of 0.600 to 0.700" in result.stdout
    assert f"files: {tmp_path}/out: " in result.stdout
    document = (tmp_path / "out" / "annotations.xml").read_text()
    names = re.findall(r'<image [^>]*name="([^"]*)"', document)
    assert sorted(Path(name).name for name in names) == ["2.png", "3.png"]


def test_a_dry_run_foretells_and_writes_nothing(
    bundle_uri: str, tmp_path: Path, call_job: CallJob
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        content = encode(draw_picture(40, 50, number), "JPEG")
        (tmp_path / "images" / f"{number}.jpg").write_bytes(content)

    flags = ["--model", bundle_uri, "--images", "images", "--output", "out"]
    result = call_job("segment", *flags, "--dry-run", "--price", "1", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "trying a sample of 3 images" in result.stdout
    assert " dollars" in result.stdout
    # Beside the images is only what ONNX Runtime keeps in a home folder.
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["images"]


def test_too_many_failures_end_a_segmentation_with_status_1_and_its_results_kept(
    bundle_uri: str, tmp_path: Path, call_job: CallJob
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "good.jpg").write_bytes(encode(draw_picture(40, 50), "JPEG"))
    (tmp_path / "images" / "bad.jpg").write_bytes(b"no image")

    flags = ["--model", bundle_uri, "--images", "images", "--output", "out"]
    result = call_job("segment", *flags, cwd=tmp_path)

    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: 50.00% of the images failed, over --max-error-rate 5.00%: see ")
    assert "segmented 1 of 2 images, 1 failed" in result.stdout
    [table] = read_tables(str(tmp_path / "out" / "results"), ["uri", "mask"])
    [row] = table.to_pylist()
    assert row["uri"] == f"{tmp_path}/images/good.jpg"
    (tmp_path / "mask.png").write_bytes(row["mask"]["bytes"])
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.size == (50, 40)
    assert (tmp_path / "out" / "report.html").exists()

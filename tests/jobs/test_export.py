"""jobs/export.py as a user runs it: by default, killed, and with what it cannot use."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from segray.storage.files import write_bytes
from segray.storage.listing import Entry, list_entries
from tests.segmentations import Made, make_segmentation
from tests.support import draw_picture, encode

ROOT = Path(__file__).parent.parent.parent

CallJob = Callable[..., subprocess.CompletedProcess[str]]


def start(*flags: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / "export.py"), *flags],
        cwd=cwd,
        env={**os.environ, "RAY_ADDRESS": "local"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_refused(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 1, result.stderr
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


def check_masks(made: Made, output: Path) -> None:
    for uri, mask in made.masks.items():
        with Image.open(output / f"{uri.removeprefix(made.images + '/')}.png") as image:
            assert np.array_equal(np.asarray(image), mask)


def test_without_flags_the_masks_of_the_last_segmentation_become_png_files(
    tmp_path: Path, call_job: CallJob
) -> None:
    made = make_segmentation(str(tmp_path), ["cat.jpg", "cat.png"])
    (tmp_path / "output").mkdir()
    Path(made.uri).rename(tmp_path / "output" / "segment")
    result = call_job("export", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "exported 2 of 2 masks" in result.stdout
    assert f"files: {tmp_path}/output/export/png" in result.stdout
    check_masks(made, tmp_path / "output" / "export" / "png")
    result = call_job("export", cwd=tmp_path)
    assert "exported 0 of 2 masks" in result.stdout
    assert "2 were there from an earlier run" in result.stdout


@pytest.mark.slow
def test_workers_of_ray(tmp_path: Path) -> None:
    made = make_segmentation(str(tmp_path), [f"{number}.jpg" for number in range(40)])
    flags = ["--results", made.uri, "--output", "masks", "--workers", "2"]
    process = start(*flags, cwd=tmp_path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors == ""
    assert "exported 40 of 40 masks" in output
    check_masks(made, tmp_path / "masks")


def test_a_killed_export_of_files_goes_on_where_it_was(tmp_path: Path, call_job: CallJob) -> None:
    made = make_segmentation(str(tmp_path), [f"{number:03}.jpg" for number in range(488)])
    flags = ["--results", made.uri, "--output", "masks"]
    output = tmp_path / "masks"
    process = start(*flags, cwd=tmp_path)
    wait_for(lambda: len(list(output.glob("*.png"))) > 30, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = {path.name: path.stat().st_mtime_ns for path in output.glob("*.png")}
    assert 30 < len(there) < 488

    result = call_job("export", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"exported {488 - len(there)} of 488 masks" in result.stdout
    check_masks(made, output)
    assert all((output / name).stat().st_mtime_ns == then for name, then in there.items())
    # Nothing half-written is left either.
    names = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert names == {
        *(f"{number:03}.jpg.png" for number in range(488)),
        "config.json",
        ".export/versions.parquet",
    }


def test_a_killed_export_of_annotations_goes_on_where_it_was(
    tmp_path: Path, call_job: CallJob
) -> None:
    made = make_segmentation(str(tmp_path), [f"{number:03}.jpg" for number in range(488)])
    flags = ["--results", made.uri, "--output", "coco", "--format", "rle"]
    output = tmp_path / "coco"
    process = start(*flags, cwd=tmp_path)
    wait_for(lambda: len(list(output.glob(".export/parts/*.parquet"))) > 5, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (output / "annotations.json").exists()
    # Four rows each, as many as a results file has here.
    parts = len(list(output.glob(".export/parts/*.parquet")))

    result = call_job("export", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"exported {488 - 4 * parts} of 488 masks" in result.stdout
    coco = COCO(str(output / "annotations.json"))
    assert len(coco.imgs) == len({image["file_name"] for image in coco.imgs.values()}) == 488
    pixels = sum(annotation["area"] for annotation in coco.anns.values())
    assert pixels == sum(mask.size for mask in made.masks.values())


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the export was over before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_too_many_failures_end_the_job_with_status_1_and_the_rest_written(
    tmp_path: Path, call_job: CallJob
) -> None:
    made = make_segmentation(str(tmp_path), [f"{number}.jpg" for number in range(5)])
    for number in range(4):
        uri = f"{made.images}/{number}.jpg"
        height, width = made.masks[uri].shape
        write_bytes(uri, encode(draw_picture(height, width), "JPEG"))
    made.list([])
    entries = [*list_entries(made.images), Entry(f"{made.images}/4.jpg", 3, "gone")]
    made.list(entries)
    made.write_rows(entries)
    flags = ["--results", made.uri, "--output", "overlays", "--format", "overlay"]
    result = call_job("export", *flags, cwd=tmp_path)
    check_refused(result, "20.00% of the masks", "--max-error-rate 5.00%", "skipped.jsonl")
    assert "exported 4 of 5 masks" in result.stdout
    assert len(list((tmp_path / "overlays").glob("*.jpg"))) == 4
    [line] = (tmp_path / "overlays" / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == f"{made.images}/4.jpg"
    result = call_job("export", *flags, "--max-error-rate", "0.2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def segmented(tmp_path: Path) -> Path:
    """A folder with a segmentation and others that are none."""
    made = make_segmentation(str(tmp_path), ["a.jpg", "b.jpg"])
    folder = Path(made.uri)
    (tmp_path / "empty").mkdir()
    for name in ("unfinished", "bare", "foreign", "torn", "stale", "headless"):
        (tmp_path / name / "results").mkdir(parents=True)
        (tmp_path / name / "config.json").symlink_to(folder / "config.json")
        if name != "unfinished":
            (tmp_path / name / "run.json").symlink_to(folder / "run.json")
        if name not in ("stale", "headless"):
            (tmp_path / name / "manifest").symlink_to(folder / "manifest")
    [manifest] = (folder / "manifest").iterdir()
    [results] = (folder / "results").iterdir()
    (tmp_path / "foreign" / "results" / "x.parquet").write_bytes(manifest.read_bytes())
    (tmp_path / "torn" / "results" / "x.parquet").write_bytes(results.read_bytes()[:-9])
    for name in ("unfinished", "headless", "stale"):
        (tmp_path / name / "results" / "x.parquet").write_bytes(results.read_bytes())
    other = make_segmentation(str(tmp_path / "elsewhere"), ["c.jpg"])
    (tmp_path / "stale" / "manifest").symlink_to(Path(other.uri) / "manifest")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--results", "nowhere"], ["nowhere", "no segmentation", "jobs/segment.py"]),
        (["--results", "empty"], ["empty", "no segmentation"]),
        (["--results", "unfinished"], ["unfinished", "is not finished", "jobs/segment.py"]),
        (["--results", "bare"], ["bare", "no segmented image"]),
        (["--results", "stale"], ["stale", "no finished row of an image that is there now"]),
        (["--results", "headless"], ["headless", "no manifest"]),
        (["--results", "foreign"], ["x.parquet", "not of a segmentation", "width"]),
        (["--results", "torn"], ["torn/results/x.parquet", "cannot read"]),
        (["--output", "segmented/masks"], ["lies in --results"]),
        (["--output", "segmented"], ["lies in --results"]),
        (["--output", "images/masks"], ["lies among the images"]),
        (["--output", "photos"], ["no export", "holiday.jpg"]),
        (["--output", ""], ["--output is empty"]),
        (["--workers", "-1"], ["--workers"]),
        (["--max-side", "3"], ["--max-side"]),
        (["--max-error-rate", "2"], ["--max-error-rate"]),
        (["--results", "gs://b/x"], ["gs://", "s3://bucket/key"]),
    ],
)
def test_bad_input(segmented: Path, call_job: CallJob, flags: list[str], parts: list[str]) -> None:
    before = sorted(path.name for path in segmented.iterdir())
    given = {"--results": "segmented", "--output": "out"} | dict([tuple(flags)])
    words = [word for name, value in given.items() for word in (name, value)]
    check_refused(call_job("export", *words, cwd=segmented), *parts)
    assert {path.name for path in segmented.iterdir()} <= {*before, "out"}

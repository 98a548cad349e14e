"""jobs/evaluate.py as a user runs it."""

import json
from pathlib import Path

import pytest

from tests.jobs.conftest import CallJob
from tests.support import draw_picture, encode


def test_too_many_unreadable_pairs_end_the_job_with_one_line_and_all_that_was_found(
    bundle_uri: str,
    tmp_path: Path,
    ray_session: None,
    call_job: CallJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the tests' Ray; that the job starts its own one is seen in test_other_labels.py."""
    monkeypatch.setattr("segray.job.start_ray", lambda use_gpu: None)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        name = f"p{number}.png"
        picture = draw_picture(40, 50, number)
        mask = encode(picture[..., 0] % 3 + 1, "PNG")
        (tmp_path / "images" / name).write_bytes(encode(picture, "PNG"))
        (tmp_path / "masks" / name).write_bytes(mask if number else b"damaged")
    flags = ["--model", bundle_uri, "--images", "images", "--masks", "masks", "--output", "out"]
    result = call_job("evaluate", *flags, cwd=tmp_path)
    assert result.returncode == 1
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("error: 1 of 3 ")
    for part in ("--max-error-rate 5.00%", "p0.png", "out/skipped.jsonl"):
        assert part in line
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert record["counts"] == {"images": 3, "evaluated": 2, "skipped": 1}
    table = {words[0]: words[1:] for row in result.stdout.splitlines() if (words := row.split())}
    figures = record["original_resolution"]["classes"]["border"]
    kinds = ("iou", "dice", "precision", "recall", "boundary_iou")
    values = [*(figures[kind] for kind in kinds), record["expected"]["iou"]["border"]]
    expected = ["-" if value is None else f"{value:.4f}" for value in values]
    assert table["border"] == expected
    assert f"mIoU {record['model_resolution']['mean_iou']:.4f}" in result.stdout

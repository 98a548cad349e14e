"""Bad input gets one line that says what to do, exit status 1, and no traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.hostile import SECRET, forge_graph, forge_weights
from tests.support import encode, free_port, write_shapes

ROOT = Path(__file__).parent.parent.parent
CLASSES = ["--classes", "box=10", "ground=20"]

CallJob = Callable[..., subprocess.CompletedProcess[str]]


def check_refused(result: subprocess.CompletedProcess, *parts: str) -> None:
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_shapes(str(tmp_path / "data"), 4)
    return tmp_path


TRAIN = ["--images", "data/images", "--masks", "data/masks", *CLASSES, "--encoder-weights", "none"]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--images", "nowhere", "--masks", "data/masks"], ["nowhere", "no such folder"]),
        (["--images", "data/note", "--masks", "data/masks"], ["it is a file; give the folder"]),
        (["--images", "data/images", "--masks", "data/note"], ["it is a file; give the folder"]),
        (["--images", "data/images", "--masks", "empty"], ["no mask found", "empty"]),
        (["--images", "data/images", "--masks", "other"], ["no image matches a mask"]),
        (["--images", "data/images"], ["--images and --masks go together"]),
        ([*TRAIN, "--classes", "box=10"], ["at least two", "name=value"]),
        ([*TRAIN, "--classes", "box", "ground=2"], ["'box' is not name=value"]),
        ([*TRAIN, "--image-size", "100"], ["--image-size 100", "multiple of 32"]),
        ([*TRAIN, "--output", "other"], ["no training run", "different.png"]),
        ([*TRAIN, "--workers", "9"], ["--batch-size 8", "--workers 9"]),
        ([*TRAIN, "--encoder-weights", "lost.h5"], ["--encoder-weights: ", "lost.h5: no such"]),
        ([*TRAIN, "--output", "data/note"], ["data/note", "it is a file", "another path"]),
        (["--images", "gs://bucket/i", "--masks", "m"], ["gs://", "s3://bucket/key"]),
    ],
)
def test_train(data: Path, call_job: CallJob, flags: list[str], parts: list[str]) -> None:
    (data / "empty").mkdir()
    (data / "other").mkdir()
    (data / "other" / "different.png").write_bytes(b"x")
    (data / "data" / "note").write_bytes(b"x")
    check_refused(call_job("train", *flags, cwd=data), *parts)


def test_an_output_below_a_file(
    data: Path, call_job: CallJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is noticed when Ray has been started, and has nothing to do yet."""
    monkeypatch.setattr("segray.job.start_ray", lambda *_, **__: None)
    (data / "data" / "note").write_bytes(b"x")
    result = call_job("train", *TRAIN, "--output", "data/note/run", cwd=data)
    check_refused(result, "data/note", "it is a file", "another path")


def test_imagenet_weights_that_cannot_be_fetched(data: Path, call_job: CallJob) -> None:
    flags = [*TRAIN, "--encoder-weights", "imagenet"]
    nowhere = f"http://127.0.0.1:{free_port()}"
    result = call_job("train", *flags, cwd=data, SEGRAY_IMAGENET_URL=nowhere)
    check_refused(result, nowhere, "--encoder-weights FILE", "--encoder-weights none")


def test_missing_credentials(data: Path, call_job: CallJob) -> None:
    result = call_job("train", "--images", "s3://b/i", "--masks", "s3://b/m", cwd=data)
    check_refused(result, "s3://b/i", "no AWS credentials", "AWS_ACCESS_KEY_ID")


def test_unreachable_bucket(data: Path, call_job: CallJob) -> None:
    result = call_job(
        "train",
        *("--images", "s3://b/i", "--masks", "s3://b/m"),
        cwd=data,
        AWS_ACCESS_KEY_ID="an-id",
        AWS_SECRET_ACCESS_KEY="very-secret",
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}",
    )
    check_refused(result, "s3://b/i", "does not answer", "AWS_ENDPOINT_URL")
    assert "very-secret" not in result.stdout + result.stderr


def test_a_mask_value_that_no_class_claims(data: Path) -> None:
    """Which Ray's processes notice: they add no line of their own."""
    mask = data / "data" / "masks" / "shape_2.png"
    pixels = np.full((40, 40), 20, dtype=np.uint8)
    pixels[3, 4] = 77
    mask.write_bytes(encode(pixels, "PNG"))
    mask_image = data / "data" / "images" / "shape_2.jpg"
    mask_image.write_bytes(encode(np.stack([pixels] * 3, -1), "JPEG"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    result = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "train.py"), *TRAIN],
        cwd=data,
        env={**clean, "HOME": str(data), "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    check_refused(result, "shape_2.png", "the value 77 in 1 pixel,", "--classes")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ([], ["output/train/model", "model.json is missing", "jobs/train.py"]),
        (["--model", "bundle", "--images", "nowhere"], ["nowhere", "no such folder"]),
        (["--model", "bundle", "--images", "data/images/shape_0.jpg"], ["it is a file; give the"]),
        (["--model", "bundle", "--images", "empty"], ["no image found", "empty"]),
        (["--model", "bundle", "--images", "data/images", "--output", "data"], ["no segmentation"]),
        (["--model", "damaged", "--images", "data/images"], ["model.onnx", "sha256"]),
        (["--workers=-1"], ["--workers must not be below 0"]),
        (["--images", "a", "--manifest", "b.csv"], ["leave out --images"]),
        (["--model", "bundle", "--manifest", "nowhere.csv"], ["nowhere.csv", "no such file"]),
        (["--max-error-rate", "7"], ["--max-error-rate"]),
        (["--max-drift", "1.5"], ["--max-drift"]),
        (
            ["--model", "bundle", "--images", "data/images", "--max-drift", "0.5"],
            ["reference.json", "leave out --max-drift"],
        ),
    ],
)
def test_segment(
    data: Path, bundle_uri: str, call_job: CallJob, flags: list[str], parts: list[str]
) -> None:
    (data / "empty").mkdir()
    (data / "bundle").symlink_to(bundle_uri)
    (data / "damaged").mkdir()
    document = json.loads(Path(bundle_uri, "model.json").read_text())
    (data / "damaged" / "model.json").write_text(json.dumps(document))
    (data / "damaged" / "model.onnx").write_bytes(b"something else")
    check_refused(call_job("segment", *flags, cwd=data), *parts)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("data outside", "a tensor's data lies outside of the file"),
        ("an unknown operator", "the operator 'Frobnicate'"),
        ("a terabyte of doublings", "numbers an image"),
        ("another network", "multiplications and not "),
    ],
)
def test_a_graph_from_somebody_else(
    data: Path, bundle_uri: str, call_job: CallJob, kind: str, part: str
) -> None:
    forge_graph(bundle_uri, data / "foreign", kind)
    (data / SECRET).write_bytes(bytes(64))
    flags = ["--model", "foreign", "--images", "data/images", "--engine", "onnx"]
    check_refused(call_job("segment", *flags, cwd=data), "foreign/model.onnx", part)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("data outside", "lies outside of the file"),
        ("a terabyte, never written", "is written in chunks"),
        ("another shape", "weights and not "),
    ],
)
@pytest.mark.parametrize("job", ["segment", "evaluate"])
def test_weights_from_somebody_else(
    job: str, data: Path, bundle_uri: str, call_job: CallJob, kind: str, part: str
) -> None:
    forge_weights(bundle_uri, data / "foreign", kind)
    flags = ["--model", "foreign", "--images", "data/images", "--engine", "tensorflow"]
    if job == "evaluate":
        flags += ["--masks", "data/masks"]
    check_refused(call_job(job, *flags, cwd=data), "foreign/model.weights.h5", part)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ([], ["output/segment", "config.json is missing", "jobs/segment.py"]),
        (["--results", "data"], ["data", "config.json is missing"]),
        (["--count", "0"], ["--count must be at least 1"]),
        (["--output", ""], ["--output is empty"]),
    ],
)
def test_review(data: Path, call_job: CallJob, flags: list[str], parts: list[str]) -> None:
    check_refused(call_job("review", *flags, cwd=data), *parts)


def test_a_flag_that_does_not_exist_is_explained(tmp_path: Path, call_job: CallJob) -> None:
    result = call_job("train", "--epoch", "3", cwd=tmp_path)
    assert result.returncode == 2
    assert "--epochs" in result.stderr
    assert "Traceback" not in result.stderr

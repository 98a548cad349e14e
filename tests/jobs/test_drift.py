"""A segmentation of images that have drifted from those of the training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.model.reference import count_features, features_of, write_reference
from segray.pixels.labels import Labels
from tests.jobs.conftest import CallJob
from tests.support import draw_picture, encode

IMAGES = 60


@pytest.fixture
def workplace(tmp_path: Path, bundle_uri: str) -> Path:
    """A model, and folders of images of three brightnesses."""
    shutil.copytree(bundle_uri, tmp_path / "model")
    for seed, (name, factor) in enumerate({"old": 1.0, "new": 1.0, "dark": 0.5}.items()):
        folder = tmp_path / name
        folder.mkdir()
        for n in range(IMAGES):
            pixels = draw_picture(40, 60, 1000 * seed + n) * factor
            (folder / f"{n}.jpg").write_bytes(encode(pixels.astype(np.uint8), "JPEG"))
    return tmp_path


def keep_reference(workplace: Path, results: str, labels: Labels) -> None:
    """Give the model the reference that a segmentation of its own images makes."""
    table = pa.concat_tables(pq.read_table(f) for f in (workplace / results).glob("*.parquet"))
    columns = {name: table[name].to_numpy() for name in table.column_names if name != "mask"}
    histograms = count_features(features_of(labels), columns)
    digest = table["model"][0].as_py()
    write_reference(str(workplace / "model"), digest, histograms)


def test_dark_images_are_noticed_and_others_are_not(
    workplace: Path, labels: Labels, call_job: CallJob
) -> None:
    def segment(images: str, *flags: str):
        output = f"out-{images}"
        flags = ("--model", "model", "--images", images, "--output", output, *flags)
        result = call_job("segment", *flags, "--workers", "0", cwd=workplace)
        record = json.loads((workplace / output / "run.json").read_text())
        return result, record["drift"]

    result, drift = segment("old")
    assert result.returncode == 0
    assert drift is None
    keep_reference(workplace, "out-old/results", labels)

    result, drift = segment("new", "--max-drift", "0.2")
    assert result.returncode == 0, result.stderr
    assert drift["distance"] == 0
    assert not any(feature["moved"] for feature in drift["features"].values())

    result, drift = segment("dark", "--max-drift", "0.2")
    assert result.returncode == 3
    assert "--max-drift 0.200" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "have drifted from the training images" in result.stdout
    brightness = drift["features"]["brightness"]
    assert brightness["moved"]
    assert brightness["mean"] == pytest.approx(brightness["reference_mean"] / 2, abs=0.03)
    assert drift["distance"] >= brightness["distance"] > 0.5
    assert sum(len(pq.read_table(f)) for f in (workplace / "out-dark/results").iterdir()) == IMAGES

    # The limit is of each run; without one, a drift is told and is no failure.
    result, _ = segment("dark")
    assert result.returncode == 0
    assert "have drifted from the training images" in result.stdout

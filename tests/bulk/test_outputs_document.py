"""Every query and program of docs/outputs/querying.md and export.md does what it says."""

import io
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.bulk.run import segment
from segray.export.config import ExportConfig
from segray.export.run import export
from tests.support import draw_picture, encode

OUTPUTS = Path(__file__).parents[2] / "docs" / "outputs"


def blocks(language: str, name: str = "querying.md") -> list[str]:
    text = (OUTPUTS / name).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def workplace(bundle_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which train and segment have been run, in this process and without Ray."""
    folder = tmp_path_factory.mktemp("workplace")
    images = folder / "output" / "sample" / "new"
    images.mkdir(parents=True)
    (folder / "output" / "train").mkdir()
    (folder / "output" / "train" / "model").symlink_to(bundle_uri)
    for number in range(200, 214):
        picture = draw_picture(40 + number % 7, 60, seed=number)
        (images / f"animal_{number:04d}.jpg").write_bytes(encode(picture, "JPEG"))
    # A name that is there twice, and an image that lies on its side.
    turned = Image.Exif()
    turned[0x0112] = 6
    (images / "more").mkdir()
    (images / "more" / "animal_0200.jpg").write_bytes(encode(picture, "JPEG", exif=turned))
    (images / "bad.jpg").write_bytes(b"no image")

    config = SegmentConfig(
        model=bundle_uri,
        images=str(images),
        output=str(folder / "output" / "segment"),
        regions=True,
    )
    with make_plan(config) as plan:
        assert segment(plan, on_ray=False).census.segmented == 15
    return folder


def test_there_are_four_queries_and_three_programs() -> None:
    assert (len(blocks("sql")), len(blocks("python"))) == (4, 3)


def test_the_queries(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    shares, top, errors, regions = (duckdb.sql(query).fetchall() for query in blocks("sql"))
    assert sum(shares[0]) == pytest.approx(1)
    assert len(top) == 10
    fractions = [row[1] for row in top]
    assert fractions == sorted(fractions, reverse=True)
    assert [row[:3] for row in errors] == [("decode", "unsupported", 1)]
    assert len(regions) == 15
    assert sum(row[1] for row in regions) > 0
    assert all((row[2] or 0) >= 20 * bool(row[1]) for row in regions)


def test_the_expected_iou_of_some_images(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    [query] = blocks("duckdb", "segmentation.md")
    [(of_all,)] = duckdb.sql(query.replace("WHERE width > height", "")).fetchall()
    [(of_some,)] = duckdb.sql(query).fetchall()
    record = json.loads((workplace / "output" / "segment" / "run.json").read_text())
    assert of_all == pytest.approx(record["expected_iou"]["pet"], rel=1e-5)
    assert 0 < of_some < 1
    assert of_some != of_all


@pytest.mark.parametrize("number", range(3))
def test_the_programs(workplace: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HF_HOME", str(workplace / "huggingface"))
    names: dict[str, object] = {}
    exec(compile(blocks("python")[number], "docs/outputs/querying.md", "exec"), names)
    mask = names["mask"]
    assert isinstance(mask, np.ndarray)
    assert mask.dtype == np.uint8
    assert mask.max() < 3


def test_datasets_decodes_every_mask_as_an_image(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(workplace / "huggingface"))
    from datasets import load_dataset

    files = str(workplace / "output" / "segment" / "results" / "*.parquet")
    results = load_dataset("parquet", data_files=files, split="train")
    assert len(results) == 15
    for row in results:
        assert isinstance(row["mask"], Image.Image)
        assert row["mask"].size == (row["width"], row["height"])
        assert int((np.asarray(row["mask"]) == 0).sum()) == row["pixels_pet"]


def read_masks(workplace: Path) -> dict[str, npt.NDArray[np.uint8]]:
    """The masks of results/, uint8 [H, W] of class ids, by the paths of their images."""
    table = pd.read_parquet(workplace / "output" / "segment" / "results")
    return {
        row.uri: np.asarray(Image.open(io.BytesIO(row.mask["bytes"]))) for row in table.itertuples()
    }


@pytest.mark.filterwarnings("ignore:OpenCV .* is not installed; supervision:UserWarning")
def test_supervision_opens_the_annotations_and_finds_every_pixel(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    export(ExportConfig(format="rle"), start_ray=lambda: None)
    names: dict[str, Any] = {}
    [program] = [block for block in blocks("python3", "export.md") if "supervision" in block]
    exec(compile(program, "docs/outputs/export.md", "exec"), names)

    masks = read_masks(workplace)
    dataset = names["dataset"]
    assert dataset.classes == ["pet", "background", "border"]
    assert sorted(dataset.image_paths) == sorted(masks)
    assert len(masks) == 15
    assert len(np.unique(np.concatenate([mask.ravel() for mask in masks.values()]))) == 3
    for path, image, regions in dataset:
        found = np.full(image.shape[:2], 255)
        for class_id, region in zip(regions.class_id, regions.mask, strict=True):
            found[region] = class_id
        assert np.array_equal(found, masks[path])
        assert regions.mask.sum() == found.size  # none of it twice

    assert np.array_equal(names["mask"], masks[names["path"]])
    assert names["drawn"].shape == names["image"].shape
    assert not np.array_equal(names["drawn"], names["image"])

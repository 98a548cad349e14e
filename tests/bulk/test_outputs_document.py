"""Every query and program of docs/outputs.md does what it says."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.bulk.run import segment
from tests.support import draw_picture, encode

TEXT = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def workplace(bundle_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which train and segment have been run, in this process and without Ray."""
    folder = tmp_path_factory.mktemp("workplace")
    images = folder / "output" / "sample" / "new"
    images.mkdir(parents=True)
    (folder / "output" / "train").mkdir()
    (folder / "output" / "train" / "model").symlink_to(bundle_uri)
    for number in range(200, 215):
        picture = draw_picture(40 + number % 7, 60, seed=number)
        (images / f"animal_{number:04d}.jpg").write_bytes(encode(picture, "JPEG"))
    (images / "bad.jpg").write_bytes(b"no image")

    config = SegmentConfig(
        model=bundle_uri, images=str(images), output=str(folder / "output" / "segment")
    )
    with make_plan(config, print) as plan:
        assert segment(plan, print, on_ray=False).outcome.segmented == 15
    return folder


def test_there_are_three_queries_and_three_programs() -> None:
    assert (len(blocks("sql")), len(blocks("python"))) == (3, 3)


def test_the_queries(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    shares, top, errors = (duckdb.sql(query).fetchall() for query in blocks("sql"))
    assert sum(shares[0]) == pytest.approx(1)
    assert len(top) == 10
    fractions = [row[1] for row in top]
    assert fractions == sorted(fractions, reverse=True)
    assert [row[:3] for row in errors] == [("decode", "unsupported", 1)]


@pytest.mark.parametrize("number", range(3))
def test_the_programs(workplace: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HF_HOME", str(workplace / "huggingface"))
    names: dict[str, object] = {}
    exec(compile(blocks("python")[number], "docs/outputs.md", "exec"), names)
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

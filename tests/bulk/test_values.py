"""Buckets of images wider than 8 bits: which values a segmentation takes for black and white."""

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image

import segray
from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.bulk.run import segment
from segray.data.values import check_values
from segray.errors import InputError
from segray.export.overlay import draw_overlay
from segray.model.bundle import open_bundle, write_bundle
from segray.pixels.labels import Labels
from segray.pixels.masks import decode_mask
from tests.support import FRAME, IMAGE_SIZE, RECORD, draw_picture, encode, logged_lines, square

if TYPE_CHECKING:
    import keras

COUNT = 4


def widen(pixels: npt.NDArray[np.uint8], highest: int = 4095) -> npt.NDArray[np.uint16]:
    return np.rint(pixels * (highest / 255)).astype(np.uint16)


def draw(number: int) -> npt.NDArray[np.uint8]:
    """uint8 [H, W], from black to white."""
    grey = draw_picture(50, 70, number)[..., 1].copy()
    grey[0, :2] = 0, 255
    return grey


def write_bucket(folder: Path, highest: int = 4095) -> Path:
    folder.mkdir()
    for number in range(COUNT):
        kind = ("PNG", "TIFF")[number % 2]
        content = encode(widen(draw(number), highest), kind)
        (folder / f"t{number}.{kind.lower()}").write_bytes(content)
    return folder


def run(config: SegmentConfig) -> list[str]:
    """What jobs/segment.py does: the lines that it would print."""
    with logged_lines() as lines, make_plan(config) as plan:
        segment(plan, on_ray=False)
    return lines


def masks(output: str) -> dict[str, npt.NDArray[np.uint8]]:
    found = {}
    for file in Path(output, "results").glob("*.parquet"):
        for row in pq.read_table(file).to_pylist():
            found[row["uri"].rpartition("/")[2]] = decode_mask(row["mask"]["bytes"])
    return found


@pytest.fixture(scope="module")
def model(network: "keras.Model", labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle that has learned from 12 bits."""
    uri = str(tmp_path_factory.mktemp("wide") / "model")
    write_bundle(uri, network, square(3, IMAGE_SIZE), labels, RECORD, FRAME, (0, 4095))
    return uri


def test_the_range_of_the_model_is_used(model: str, bundle_uri: str, tmp_path: Path) -> None:
    assert open_bundle(model, []).value_range == (0, 4095)
    assert open_bundle(bundle_uri, []).value_range is None
    folder = write_bucket(tmp_path / "images")
    config = SegmentConfig(model=model, images=str(folder), output=str(tmp_path / "out"), workers=0)
    lines = run(config)
    assert not [line for line in lines if "--value-range" in line]
    found = masks(config.output)
    assert len(found) == COUNT
    segmenter = segray.load(model)
    for name, mask in found.items():
        assert np.array_equal(mask, segmenter.segment(folder / name))
        narrow = segmenter.segment(encode(draw(int(name[1])), "PNG"))
        assert len(np.unique(narrow)) > 1
        assert (mask != narrow).mean() < 0.02
    assert json.loads((tmp_path / "out" / "config.json").read_text())["value_range"] == [0, 4095]


def test_another_range_gives_other_masks_and_needs_another_output(
    model: str, tmp_path: Path
) -> None:
    folder = write_bucket(tmp_path / "images", 65535)
    config = SegmentConfig(model=model, images=str(folder), output=str(tmp_path / "out"), workers=0)
    [told] = [line for line in run(config) if "--value-range" in line]
    assert "values to 65535" in told
    assert "0 to 4095" in told
    assert "--value-range 0 65535" in told
    clipped = masks(config.output)

    asked = dataclasses.replace(config, value_range=(0, 65535))
    with pytest.raises(InputError, match=r"--value-range 0 4095, and .* 0 65535") as refusal:
        run(asked)
    assert "\n" not in str(refusal.value)
    lines = run(dataclasses.replace(asked, output=str(tmp_path / "other")))
    assert not [line for line in lines if "--value-range" in line]
    segmenter = segray.load(model)
    for name, mask in masks(str(tmp_path / "other")).items():
        narrow = segmenter.segment(encode(draw(int(name[1])), "PNG"))
        assert (mask != narrow).mean() < 0.02
        assert (mask != clipped[name]).mean() > 0.1


@pytest.mark.parametrize("value_range", [(5, 5), (0, 65536), (-1, 255), (4095, 0)])
def test_what_is_no_range_is_refused(value_range: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"--value-range {value_range[0]} {value_range[1]}"):
        SegmentConfig(value_range=value_range)


@pytest.mark.parametrize(
    ("highest", "value_range", "told"),
    [
        ([4000, 300], (0, 4095), ""),
        ([500], (0, 4095), "values to 500, .*dark.*--value-range 0 511$"),
        ([500, 600], (0, 4095), ""),
        ([4000, 4096], (0, 4095), "values to 4096, .*above is white.*--value-range 0 8191$"),
        ([16320], None, "values to 16320, .*0 to 65535 .*dark.*--value-range 0 16383$"),
        ([3000], None, "values to 3000, .*0 to 65535 .*dark.*--value-range 0 4095$"),
        ([3000, 60000], None, ""),
        ([200], None, ""),
        ([], None, ""),
        ([], (0, 4095), ""),
    ],
)
def test_a_bucket_of_another_range_is_told(
    highest: list[int],
    value_range: tuple[int, int] | None,
    told: str,
    tmp_path: Path,
    lines: list[str],
) -> None:
    uris = []
    for number, value in enumerate(highest):
        pixels = np.full((9, 9), value, dtype=np.uint16)
        pixels[0] = 0
        uris.append(str(tmp_path / f"{number}.png"))
        Path(uris[-1]).write_bytes(encode(pixels, "PNG"))
    for name, content in {
        "narrow.png": encode(draw(0), "PNG"),
        "photo.jpg": encode(draw(1), "JPEG"),
        "damaged.tif": b"II*\0",
    }.items():
        uris.append(str(tmp_path / name))
        Path(uris[-1]).write_bytes(content)
    uris.append(str(tmp_path / "gone.png"))
    check_values(uris, value_range)
    assert len(lines) == bool(told)
    if told:
        assert re.search(told, lines[0])


def test_an_overlay_shows_the_image_as_it_was_segmented() -> None:
    grey = draw(0)
    mask = encode(np.zeros(grey.shape, np.uint8), "PNG")
    image = Image.open(io.BytesIO(mask)).convert("P")
    image.putpalette([0, 0, 0] * 256)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    height, width = grey.shape
    overlays = [
        np.asarray(Image.open(io.BytesIO(draw_overlay(content, buffer.getvalue(), *rest))))
        for content, *rest in (
            (encode(widen(grey), "PNG"), width, height, 1024, (0, 4095)),
            (encode(grey, "PNG"), width, height, 1024),
        )
    ]
    assert np.abs(overlays[0].astype(int) - overlays[1]).max() <= 12

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

import segray
from segray import InputError, Segmenter
from segray.model.bundle import DESCRIPTION
from segray.pixels.labels import Labels
from segray.storage.files import write_bytes
from tests.support import IMAGE_SIZE, change_bundle, draw_picture, encode


@pytest.fixture(scope="module")
def segmenter(bundle_uri: str) -> Segmenter:
    return segray.load(bundle_uri)


def test_says_which_model_it_is(segmenter: Segmenter, labels: Labels) -> None:
    assert segmenter.labels == labels
    assert segmenter.image_size == (IMAGE_SIZE, IMAGE_SIZE)
    assert len(segmenter.digest) == 16


def test_engines_give_the_same_mask(segmenter: Segmenter, bundle_uri: str) -> None:
    picture = draw_picture(200, 150)

    mask = segray.load(bundle_uri, engine="tensorflow").segment(picture)

    assert len(np.unique(mask)) == 3, "a mask of one class would prove nothing"
    assert (mask != segmenter.segment(picture)).mean() < 1e-4


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_every_way_to_give_an_image_gives_the_same_mask(
    kind: str, segmenter: Segmenter, s3: Callable[[str], str], tmp_path: Path
) -> None:
    content = encode(draw_picture(90, 130), kind)
    path = tmp_path / "image"
    path.write_bytes(content)
    uri = f"{s3('model-images-' + kind.lower())}/image"
    write_bytes(uri, content)
    image = Image.open(io.BytesIO(content))

    mask = segmenter.segment(content)

    assert (mask.shape, mask.dtype) == ((90, 130), np.uint8)
    assert len(np.unique(mask)) > 1
    for source in (path, str(path), uri, image, np.asarray(image)):
        np.testing.assert_array_equal(segmenter.segment(source), mask)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (IMAGE_SIZE, IMAGE_SIZE), (241, 97)])
def test_mask_has_the_size_of_the_image(size: tuple[int, int], segmenter: Segmenter) -> None:
    mask = segmenter.segment(draw_picture(*size))

    assert mask.shape == size
    assert mask.max() < 3


def test_a_letterboxed_mask_is_that_of_the_image_between_bars(
    segmenter: Segmenter, bundle_uri: str, tmp_path: Path
) -> None:
    picture = draw_picture(IMAGE_SIZE // 2, IMAGE_SIZE)
    padded = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 128, np.uint8)
    rows = slice(IMAGE_SIZE // 4, 3 * IMAGE_SIZE // 4)
    padded[rows] = picture

    mask = segray.load(change_bundle(bundle_uri, tmp_path, fit="letterbox")).segment(picture)

    np.testing.assert_array_equal(mask, segmenter.segment(padded)[rows])
    assert (mask != segmenter.segment(picture)).any()


def test_a_tiled_mask_is_blended_from_windows(
    segmenter: Segmenter, bundle_uri: str, tmp_path: Path
) -> None:
    tiled = segray.load(change_bundle(bundle_uri, tmp_path, fit="tile"))
    picture = draw_picture(IMAGE_SIZE, 3 * IMAGE_SIZE)

    mask = tiled.segment(picture)

    assert mask.shape == (IMAGE_SIZE, 3 * IMAGE_SIZE)
    assert len(np.unique(mask)) > 1
    # What one window alone sees is what that window says.
    alone = slice(0, IMAGE_SIZE // 2)
    first = segmenter.segment(picture[:, :IMAGE_SIZE])
    np.testing.assert_array_equal(mask[:, alone], first[:, alone])


@pytest.mark.parametrize("size", [(1, 1), (20, 300), (IMAGE_SIZE, IMAGE_SIZE), (150, 40)])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_a_tiled_mask_has_the_size_of_the_image(
    size: tuple[int, int], scale: float, bundle_uri: str, tmp_path: Path
) -> None:
    tiled = segray.load(change_bundle(bundle_uri, tmp_path, fit="tile", scale=scale))
    if size == (1, 1) and scale < 1:
        with pytest.raises(InputError, match=r"--scale of 0.5"):
            tiled.segment(draw_picture(*size))
    else:
        assert tiled.segment(draw_picture(*size)).shape == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_mask_is_upright(orientation: int, segmenter: Segmenter) -> None:
    stored = Image.fromarray(draw_picture(60, 100))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)

    # The EXIF standard's own words: which side of the picture the first row and column are.
    pixels = np.asarray(stored)
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]

    expected = segmenter.segment(np.ascontiguousarray(pixels))
    np.testing.assert_array_equal(segmenter.segment(buffer.getvalue()), expected)


def test_takes_grey_images(segmenter: Segmenter) -> None:
    grey = draw_picture(70, 90)[:, :, 0]
    expected = segmenter.segment(np.stack([grey] * 3, axis=-1))

    for source in (grey, Image.fromarray(grey), encode(grey, "PNG")):
        np.testing.assert_array_equal(segmenter.segment(source), expected)


def test_drops_alpha_and_looks_colours_up(segmenter: Segmenter) -> None:
    picture = Image.fromarray(draw_picture(70, 90)).quantize(64)
    expected = segmenter.segment(picture.convert("RGB"))
    transparent = picture.convert("RGBA")
    transparent.putalpha(7)

    np.testing.assert_array_equal(segmenter.segment(picture), expected)
    np.testing.assert_array_equal(segmenter.segment(transparent), expected)


def test_does_not_change_the_image(segmenter: Segmenter) -> None:
    picture = draw_picture(70, 90)
    image = Image.fromarray(picture)

    segmenter.segment(image)

    assert (image.size, image.mode) == ((90, 70), "RGB")
    np.testing.assert_array_equal(np.asarray(image), picture)


@pytest.mark.parametrize("content", [b"", b"no\nimage", encode(draw_picture(9, 9), "PNG")[:-60]])
def test_refuses_a_bad_file_by_its_name(
    content: bytes, segmenter: Segmenter, tmp_path: Path
) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)

    with pytest.raises(InputError, match=rf"^cannot segment {path}: [^\n]+$"):
        segmenter.segment(path)
    with pytest.raises(InputError, match=r"^cannot segment the image: [^\n]+$"):
        segmenter.segment(content)


def test_refuses_a_missing_file_by_its_name(segmenter: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "missing.png"

    with pytest.raises(InputError, match=rf"^cannot read {path}: no such file or folder$"):
        segmenter.segment(path)
    with pytest.raises(InputError, match=rf"^cannot read {tmp_path}: it is a folder, [^\n]+$"):
        segmenter.segment(tmp_path)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((9, 9, 3), np.float32),
        np.zeros((9, 9), np.float64),
        np.zeros((9, 9), np.int64),
        np.zeros((9, 9), np.uint16),
        np.zeros((9, 9), np.bool_),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((9, 9, 1), np.uint8),
        np.zeros((3, 9, 9), np.uint8),
        np.zeros((1, 9, 9, 3), np.uint8),
        np.zeros(9, np.uint8),
        np.zeros((0, 9, 3), np.uint8),
        np.zeros((9, 0), np.uint8),
    ],
    ids=lambda pixels: f"{pixels.dtype}{list(pixels.shape)}",
)
def test_refuses_arrays_that_are_no_pixels(
    pixels: np.ndarray[Any, Any], segmenter: Segmenter
) -> None:
    with pytest.raises(InputError, match=r"^cannot segment an array [^\n]*give uint8 \[H, W, 3\]"):
        segmenter.segment(pixels)


def test_takes_an_array_that_is_a_view(segmenter: Segmenter) -> None:
    mirrored = draw_picture(70, 90)[:, ::-1]

    expected = segmenter.segment(mirrored.copy())

    np.testing.assert_array_equal(segmenter.segment(mirrored), expected)


def test_refuses_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path} holds no model \({DESCRIPTION} is missing"):
        segray.load(str(tmp_path))


def test_an_unknown_engine_is_named(bundle_uri: str) -> None:
    with pytest.raises(InputError, match="no engine 'torch': take one of auto, tensorflow, onnx"):
        segray.load(bundle_uri, engine="torch")  # type: ignore[arg-type]


def test_a_notebook_shows_what_the_model_is(bundle_uri: str) -> None:
    segmenter = segray.load(bundle_uri)
    shown = (
        f"<Segmenter {segmenter.digest}: pet, background, border at {IMAGE_SIZE}x{IMAGE_SIZE} px>"
    )
    assert repr(segmenter) == shown

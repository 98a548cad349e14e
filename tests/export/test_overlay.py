"""Overlays: the right size, upright, and in the colours of the classes."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from segray.export.overlay import draw_overlay
from segray.pixels.decoding import DecodeError
from segray.pixels.masks import encode_mask
from tests.segmentations import LABELS
from tests.support import encode


def draw(content: bytes, mask: npt.NDArray[np.uint8], max_side: int) -> npt.NDArray[np.uint8]:
    height, width = mask.shape
    jpeg = draw_overlay(content, encode_mask(mask, LABELS.palette), width, height, max_side)
    with Image.open(io.BytesIO(jpeg)) as image:
        assert image.format == "JPEG"
        return np.asarray(image).astype(int)


def test_classes_have_half_of_their_colour_and_a_white_line_between_them() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 2
    overlay = draw(encode(image, "PNG"), mask, 1024)
    assert overlay.shape == (40, 60, 3)
    for column, class_id in ((10, 0), (50, 2)):
        expected = (100 + np.array(LABELS.palette[class_id])) / 2
        assert np.abs(overlay[20, column] - expected).max() <= 4
    assert overlay[20, 29].min() > 220
    assert overlay[20, 31].max() < 180


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_image_is_turned_upright_and_scaled(orientation: int) -> None:
    stored = np.zeros((300, 400, 3), np.uint8)
    stored[:150, :200] = 255  # the upper left quarter, as it is stored
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    height, width = (400, 300) if orientation == 6 else (300, 400)
    overlay = draw(encode(stored, "JPEG", exif=exif), np.ones((height, width), np.uint8), 100)
    assert max(overlay.shape[:2]) == 100
    assert overlay.shape[:2] == (height // 4, width // 4)
    bright = {1: (0.25, 0.25), 3: (0.75, 0.75), 6: (0.25, 0.75)}[orientation]
    for row in (0.25, 0.75):
        for column in (0.25, 0.75):
            value = overlay[int(row * overlay.shape[0]), int(column * overlay.shape[1])].mean()
            assert (value > 150) == ((row, column) == bright)


def test_a_small_mask_is_scaled_to_the_image() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    small = encode_mask(np.array([[0, 2]], np.uint8), LABELS.palette)
    jpeg = draw_overlay(encode(image, "PNG"), small, 60, 40, 1024)
    with Image.open(io.BytesIO(jpeg)) as file:
        overlay = np.asarray(file).astype(int)
    assert overlay.shape == (40, 60, 3)
    assert np.abs(overlay[20, 10] - (100 + np.array(LABELS.palette[0])) / 2).max() <= 4
    assert np.abs(overlay[20, 50] - (100 + np.array(LABELS.palette[2])) / 2).max() <= 4


def test_what_cannot_be_drawn_has_a_reason() -> None:
    image = encode(np.zeros((30, 20, 3), np.uint8), "PNG")
    mask = encode_mask(np.zeros((30, 20), np.uint8), LABELS.palette)
    for content, png, reason in (
        (image[:-30], mask, "truncated"),
        (b"text", mask, "not an image"),
        (image, mask[:40], "mask is damaged"),
    ):
        with pytest.raises(DecodeError, match=reason):
            draw_overlay(content, png, 20, 30, 1024)
    with pytest.raises(DecodeError, match="has changed since it was segmented: it is 20 x 30"):
        draw_overlay(image, mask, 21, 30, 1024)

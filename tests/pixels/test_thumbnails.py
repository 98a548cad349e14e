"""Thumbnails."""

import io

import numpy as np
import pytest
from PIL import Image

from segray.pixels.decoding import read_picture
from segray.pixels.thumbnails import encode_thumbnail, fit_size, scale_mask
from tests.support import draw_picture, encode


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((512, 256), (256, 128)),
        ((300, 400), (192, 256)),
        ((256, 256), (256, 256)),
        ((64, 48), (64, 48)),
        ((1, 1), (1, 1)),
        ((1, 20_000), (1, 256)),
    ],
)
def test_a_thumbnail_keeps_the_proportions(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fit_size(*size, 256) == fitted


def test_a_thumbnail_looks_like_its_image() -> None:
    pixels = draw_picture(300, 400)
    thumbnail = encode_thumbnail(read_picture(encode(pixels, "PNG"), 128), 128)
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert (image.format, image.size) == ("JPEG", (128, 96))
        small = np.asarray(Image.fromarray(pixels).resize((128, 96)), dtype=np.float64)
        assert np.abs(np.asarray(image) - small).mean() < 4


def test_a_scaled_mask_takes_the_nearest_pixel() -> None:
    mask = np.array([[0, 0, 1, 1], [2, 2, 3, 3]], dtype=np.uint8)
    assert scale_mask(mask, 2, 2).tolist() == [[0, 1], [2, 3]]
    assert scale_mask(mask, 4, 2).tolist() == mask.tolist()
    assert scale_mask(mask, 8, 2).tolist() == np.repeat(mask, 2, axis=1).tolist()
    odd = np.arange(9, dtype=np.uint8).reshape(3, 3)
    assert scale_mask(odd, 1, 1).tolist() == [[4]]  # the one in the middle

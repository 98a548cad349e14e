"""The appearance of images in numbers."""

import io
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageFilter

from segray.pixels.appearance import Appearance, measure_appearance
from segray.pixels.decoding import Picture, read_picture
from segray.pixels.framing import Frame
from segray.pixels.tiff_rows import TiffRows
from tests.support import draw_picture, encode


def measure(pixels: npt.NDArray[np.uint8], frame: int | Frame | None = None) -> Appearance:
    height, width, _ = pixels.shape
    own = Frame(height, width, "squash") if frame is None else frame
    return measure_appearance(read_picture(Image.fromarray(pixels), own))


def fill(*colour: int) -> npt.NDArray[np.uint8]:
    return np.full((8, 127, 3), colour, dtype=np.uint8)


@pytest.mark.parametrize(
    ("colour", "brightness", "saturation", "warmth"),
    [
        ((0, 0, 0), 0, 0, 0),
        ((255, 255, 255), 1, 0, 0),
        ((255, 0, 0), 0.2126, 1, 1),
        ((0, 0, 255), 0.0722, 1, -1),
        ((100, 50, 50), 0.238, 0.196, 0.196),
        ((200, 200, 200), 0.784, 0, 0),
    ],
)
def test_plain_colours(
    colour: tuple[int, int, int], brightness: float, saturation: float, warmth: float
) -> None:
    found = measure(fill(*colour))
    assert found.brightness == pytest.approx(brightness, abs=3e-3)  # of weights in 256ths
    assert found.saturation == pytest.approx(saturation, abs=1e-3)
    assert found.warmth == pytest.approx(warmth, abs=1e-3)
    assert (found.contrast, found.sharpness, found.upper_detail) == (0, 0, 0.5)


def test_contrast_is_the_deviation_of_the_luma() -> None:
    pixels = fill(0, 0, 0).copy()
    pixels[:, ::2] = 255
    assert measure(pixels).contrast == pytest.approx(0.5, abs=1e-4)


def test_blur_lowers_the_sharpness_and_noise_raises_it() -> None:
    sharp = draw_picture(96, 96)
    blurred = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(3)))
    noise = np.random.default_rng(0).normal(0, 20, sharp.shape)
    noisy = np.clip(sharp + noise, 0, 255).astype(np.uint8)
    values = [measure(pixels).sharpness for pixels in (blurred, sharp, noisy)]
    assert values == sorted(values)
    assert values[2] > 1.5 * values[0]


def test_the_upper_half_has_the_detail_that_is_there() -> None:
    pixels = fill(90, 90, 90).copy()
    pixels[:4, ::2] = 130
    assert measure(pixels).upper_detail == pytest.approx(1)
    assert measure(pixels[::-1]).upper_detail == pytest.approx(0)


def test_the_bars_of_a_letterbox_do_not_count() -> None:
    pixels = draw_picture(32, 64)
    assert measure(pixels, Frame(64, 64, "letterbox")) == measure(pixels)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_tiny_images_have_an_appearance(height: int, width: int) -> None:
    found = vars(measure(draw_picture(height, width)))
    assert np.isfinite(list(found.values())).all()


def test_a_large_image_is_measured_by_some_of_its_rows() -> None:
    pixels = draw_picture(900, 700)
    rough, exact = vars(measure(pixels)), vars(measure(pixels[:, :250]))
    assert rough != exact
    parts = [vars(measure(pixels[top : top + 300])) for top in (0, 300, 600)]
    for name in ("brightness", "saturation", "warmth"):
        assert rough[name] == pytest.approx(np.mean([part[name] for part in parts]), abs=0.01)


def test_rows_of_a_large_tiff_are_measured_like_its_pixels() -> None:
    pixels = draw_picture(150, 201)
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, tile=(32, 48), photometric="rgb")
    whole = read_picture(encode(pixels, "PNG"), Frame(64, 64, "tile"))
    empty = np.empty((0, 0, 3), dtype=np.uint8)
    in_rows: Picture = replace(whole, pixels=empty, rows=TiffRows(content.getvalue()))
    assert measure_appearance(in_rows) == measure_appearance(whole)

"""The appearance of an image: light, colour and detail in a few numbers, whatever it shows."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.pixels.decoding import Picture

# Of a large image some rows are measured: at least so many, and about so many pixels.
_ROWS, _PIXELS = 32, 1 << 18
# The shares of red, green and blue in the luma, in 256ths: ITU-R BT.709. Whole numbers, because
# rounded ones give plain images a sharpness.
_LUMA = 54, 183, 19
_WHITE = 255 * 256


@dataclass(frozen=True)
class Appearance:
    """The appearance of an image, at the resolution at which a network sees it.

    Detail is the difference of neighbouring pixels in a row.

    Attributes:
        brightness: the mean luma, 0 (black) to 1 (white).
        contrast: the standard deviation of the luma, 0 to 0.5.
        saturation: the mean difference of the largest and the smallest channel, 0 (grey) to 1.
        warmth: the mean difference of red and blue, -1 to 1.
        sharpness: the mean change of the detail from one pixel to the next, divided by the mean
            detail: 0 (smooth) to 2. Blur lowers it, and noise raises it.
        upper_detail: the share of the detail that is in the upper half, 0 to 1; 0.5 without any.
    """

    brightness: float
    contrast: float
    saturation: float
    warmth: float
    sharpness: float
    upper_detail: float


#: The names of what is measured.
APPEARANCE = tuple(Appearance.__dataclass_fields__)


def measure_appearance(picture: Picture) -> Appearance:
    """Measure the appearance of an image; the padding around it does not count."""
    pixels = _take_rows(picture)
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    luma = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    detail = np.diff(luma, axis=1)
    sharpness = _divide(_mean(np.abs(np.diff(detail, axis=1))), _mean(np.abs(detail)))
    half = len(luma) // 2
    upper, lower = (_mean(np.abs(part)) for part in (detail[:half], detail[len(luma) - half :]))
    return Appearance(
        brightness=_mean(luma) / _WHITE,
        contrast=float(luma.std()) / _WHITE,
        saturation=_mean(most - least) / 255,
        warmth=(_mean(red) - _mean(blue)) / 255,
        sharpness=sharpness,
        upper_detail=_divide(upper, upper + lower, 0.5),
    )


def _take_rows(picture: Picture) -> npt.NDArray[np.uint8]:
    rows = picture.content if picture.rows is None else picture.rows
    height, width, _ = rows.shape
    step = max(1, min(height // _ROWS, height * width // _PIXELS))
    if step == 1 and picture.rows is None:
        return picture.content
    return np.concatenate([rows[top : top + 1] for top in range(0, height, step)])


def _mean(values: npt.NDArray[np.generic]) -> float:
    return float(values.mean()) if values.size else 0.0


def _divide(part: float, whole: float, without: float = 0.0) -> float:
    return part / whole if whole else without

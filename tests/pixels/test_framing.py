"""Frames: where an image lies in the rectangle that the network takes."""

import numpy as np
import pytest

from segray.pixels.framing import Box, Fit, Frame
from segray.pixels.labels import IGNORED


@pytest.mark.parametrize("size", [(1, 1), (352, 480), (50, 4000)])
def test_a_squashed_image_fills_the_frame(size: tuple[int, int]) -> None:
    assert Frame(32, 64).place(*size) == Box(0, 0, 32, 64)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (100, 200, Box(0, 0, 32, 64)),
        (200, 200, Box(0, 16, 32, 32)),
        (100, 400, Box(8, 0, 16, 64)),
        (1, 1, Box(0, 16, 32, 32)),
        (1, 10_000, Box(15, 0, 1, 64)),
        (10_000, 1, Box(0, 31, 32, 1)),
        # 32 x 96: scaled by two thirds to 21.3 rows.
        (32, 96, Box(5, 0, 21, 64)),
    ],
)
def test_a_letterboxed_image_keeps_its_proportions(height: int, width: int, box: Box) -> None:
    assert Frame(32, 64, "letterbox").place(height, width) == box


def test_a_mask_lies_where_its_image_does() -> None:
    frame = Frame(8, 8, "letterbox")
    class_ids = np.repeat(np.array([[0, 1]], np.uint8), 8, axis=1).repeat(8, axis=0)
    small = frame.scale_mask(class_ids)
    assert (small[:2] == IGNORED).all()
    assert (small[6:] == IGNORED).all()
    assert small[2:6].tolist() == [[0] * 4 + [1] * 4] * 4
    assert frame.crop(small, *class_ids.shape).tolist() == small[2:6].tolist()


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_another_resolution_has_the_same_proportions(fit: Fit) -> None:
    frame = Frame(32, 64, fit)
    large = frame.resize(2)
    assert large == Frame(64, 128, fit)
    assert large.place(200, 200) == Box(*(2 * side for side in frame.place(200, 200)))

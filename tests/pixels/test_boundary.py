"""Boundary IoU: against bands drawn by hand, and against erosion as the paper does it."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.pixels.boundary import band_width, boundary_counts
from segray.pixels.labels import IGNORED

Mask = npt.NDArray[np.uint8]


def as_mask(text: str) -> Mask:
    rows = ["".join(line.split()) for line in text.strip().splitlines()]
    return np.array([[IGNORED if c == "." else int(c) for c in row] for row in rows], np.uint8)


def erode_step_by_step(truth: Mask, prediction: Mask, classes: int) -> list[tuple[int, int]]:
    """Intersection and union of each class's bands, by d erosions with a 3x3 square."""
    distance = band_width(*truth.shape)
    height, width = truth.shape

    def band(inside: npt.NDArray[np.bool]) -> npt.NDArray[np.bool]:
        eroded = inside
        for _ in range(distance):
            padded = np.pad(eroded, 1)
            shifted = [
                padded[row : row + height, column : column + width]
                for row in range(3)
                for column in range(3)
            ]
            eroded = np.logical_and.reduce(shifted)
        return inside & ~eroded

    counts = []
    for class_id in range(classes):
        true = band(truth == class_id)
        predicted = band((prediction == class_id) & (truth != IGNORED))
        counts.append((int((true & predicted).sum()), int((true | predicted).sum())))
    return counts


def count(truth: Mask, prediction: Mask, classes: int) -> list[tuple[int, int]]:
    intersection, union = boundary_counts(truth, prediction, classes)
    assert intersection.dtype == union.dtype == np.int64
    return list(zip(intersection.tolist(), union.tolist(), strict=True))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    # 2 % of the diagonal: 0.03, 1.41, 10 and 12.5, which numpy and Python round to the even 12.
    [(1, 1, 1), (50, 50, 1), (300, 400, 10), (375, 500, 12), (3000, 4000, 100)],
)
def test_the_band_is_two_percent_of_the_diagonal(height: int, width: int, expected: int) -> None:
    assert band_width(height, width) == expected


def test_the_band_of_a_square_is_its_frame() -> None:
    truth = as_mask("""
        0 0 0 0 0 0 0
        0 1 1 1 1 0 0
        0 1 1 1 1 0 0
        0 1 1 1 1 0 0
        0 1 1 1 1 0 0
        0 0 0 0 0 0 0
        0 0 0 0 0 0 0
    """)
    # Class 1: a frame of 12 around 4 inner pixels. Class 0: 33 pixels, each of them next to the
    # border of the image or to the square.
    assert count(truth, truth, 2) == [(33, 33), (12, 12)] == erode_step_by_step(truth, truth, 2)


def test_a_shift_costs_more_than_in_the_plain_iou() -> None:
    truth = np.zeros((12, 12), np.uint8)
    truth[2:8, 2:8] = 1
    prediction = np.roll(truth, 1, axis=1)
    # Two frames of 6 x 6, 20 pixels each, one a column to the right of the other. They share five
    # pixels in the top row and five in the bottom row.
    assert count(truth, prediction, 2)[1] == (10, 30)
    inside = truth == 1
    plain = (inside & (prediction == 1)).sum() / (inside | (prediction == 1)).sum()
    assert plain == pytest.approx(30 / 42)


def test_an_ignored_pixel_is_in_no_count_and_its_prediction_moves_nothing() -> None:
    truth = as_mask("""
        0 0 0 0 0 0
        0 0 0 0 0 0
        0 0 . . 0 0
        0 0 . . 0 0
        0 0 0 0 0 0
        0 0 0 0 0 0
    """)
    agreeing = np.zeros_like(truth)
    other = np.where(truth == IGNORED, 1, 0).astype(np.uint8)
    assert count(truth, agreeing, 2) == count(truth, other, 2) == [(32, 32), (0, 0)]
    nothing = np.full_like(truth, IGNORED)
    assert count(nothing, other, 2) == [(0, 0), (0, 0)]


@pytest.mark.parametrize("seed", range(25))
def test_it_counts_what_erosion_step_by_step_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 170, 2))

    def blobs(classes: int) -> Mask:
        cells = Image.fromarray(rng.integers(0, classes, (5, 5), dtype=np.uint8))
        return np.array(cells.resize((width, height), Image.Resampling.NEAREST))

    truth, prediction = blobs(4), blobs(3)
    truth[truth == 3] = IGNORED
    assert count(truth, prediction, 3) == erode_step_by_step(truth, prediction, 3)


def test_255_classes() -> None:
    every = np.arange(255, dtype=np.uint8).reshape(15, 17)
    assert count(every, every, 255) == [(1, 1)] * 255

"""Windows: they cover an image, and their logits blend into one map whatever the order of work."""

import numpy as np
import numpy.typing as npt
import pytest

from segray.pixels.masks import MaskBuilder, segment_logits
from segray.pixels.windows import Axis, Blender, Grid

SIZES = [(32, 32), (1, 1), (20, 90), (33, 32), (100, 75), (64, 40), (255, 31)]


def blend(grid: Grid, logits: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], list[int]]:
    """All rows of the image, and how many came at a time."""
    blender = Blender(grid, logits.shape[-1])
    rows = [rows for window in logits if (rows := blender.add(window)) is not None]
    return np.concatenate(rows), [len(some) for some in rows]


def random_logits(grid: Grid, classes: int = 3) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(len(grid), *grid.window, classes)).astype(np.float32)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("length", [32, 33, 63, 64, 100, 1000])
def test_windows_cover_a_side_and_their_weights_sum_to_one(length: int, overlap: float) -> None:
    axis = Axis.cover(length, 32, overlap)
    assert axis.starts[0] == 0
    assert axis.starts[-1] == length - 32
    distances = np.diff(axis.starts)
    assert (distances <= 32 * (1 - overlap)).all()
    assert len(distances) == 0 or distances.max() - distances.min() <= 1
    total = np.zeros(length)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert (weights > 0).all()
        total[start : start + 32] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_window_counts_most_in_its_middle_and_changes_smoothly() -> None:
    weights = Axis.cover(100, 32, 0.25).weights[1]
    assert weights[0] < 0.01
    assert weights[15] == 1
    assert np.abs(np.diff(weights)).max() < 0.25


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_blended_logits_are_the_weighted_sum_of_all_windows(
    size: tuple[int, int], overlap: float
) -> None:
    grid = Grid(*size, (32, 32), overlap)
    logits = random_logits(grid)
    total = np.zeros((max(size[0], 32), max(size[1], 32), 3))
    number = 0
    for top, down in zip(grid.rows.starts, grid.rows.weights, strict=True):
        for left, along in zip(grid.columns.starts, grid.columns.weights, strict=True):
            part = total[top : top + 32, left : left + 32]
            part += down[:, None, None] * along[:, None] * logits[number]
            number += 1
    blended, counts = blend(grid, logits)
    np.testing.assert_allclose(blended, total[: size[0], : size[1]], atol=1e-5)
    assert blended.shape == (*size, 3)
    assert max(counts) <= 32


@pytest.mark.parametrize("size", SIZES)
def test_constant_logits_give_a_constant_mask(size: tuple[int, int]) -> None:
    grid = Grid(*size, (32, 32), 0.25)
    logits = np.broadcast_to(np.float32([1, 5, -2]), (len(grid), 32, 32, 3))
    blended, _ = blend(grid, logits)
    np.testing.assert_allclose(blended, np.broadcast_to([1, 5, -2], blended.shape), atol=1e-5)
    assert (segment_logits(blended, *size)[0] == 1).all()


@pytest.mark.parametrize("target", [None, (300, 200), (40, 31), (7, 9)])
@pytest.mark.parametrize("step", [1, 7, 64])
def test_a_mask_is_the_same_in_whatever_bands_its_logits_come(
    step: int, target: tuple[int, int] | None
) -> None:
    logits = np.random.default_rng(1).normal(0, 3, (100, 75, 4)).astype(np.float32)
    height, width = target or (100, 75)
    builder = MaskBuilder(logits.shape, height, width)
    for start in range(0, 100, step):
        builder.add(logits[start : start + step])
    mask, statistics = builder.finish()
    expected, counts = segment_logits(logits, height, width)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(statistics.pixels, counts.pixels)
    np.testing.assert_allclose(statistics.summed_confidence, counts.summed_confidence)

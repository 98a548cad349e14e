"""Pixel statistics: shares and mean confidences from sums."""

import numpy as np
import pytest

from segray.pixels.labels import IGNORED
from segray.pixels.statistics import ClassStatistics, Tally


def test_fractions_are_shares_of_all_pixels() -> None:
    statistics = ClassStatistics(np.array([6, 0, 2]), np.array([3.0, 0.0, 2.0]))
    assert statistics.fractions.tolist() == [0.75, 0.0, 0.25]


def test_a_confidence_is_a_mean_and_none_where_there_is_no_pixel() -> None:
    statistics = ClassStatistics(np.array([6, 0, 2]), np.array([3.0, 0.0, 1.5]))
    assert statistics.confidences == [0.5, None, 0.75]


def test_rounding_carries_no_confidence_past_one() -> None:
    statistics = ClassStatistics(np.array([3, 1]), np.array([3.0000001, 1.0]))
    assert statistics.confidences == [1.0, 1.0]


def test_a_billion_pixels_are_counted_exactly() -> None:
    statistics = ClassStatistics(np.array([2**40 + 1, 2**40 - 1]), np.array([2.0**39, 2.0**40]))
    assert int(statistics.pixels.sum()) == 2**41
    assert statistics.fractions.sum() == pytest.approx(1.0, abs=1e-15)
    assert statistics.fractions[0] > statistics.fractions[1]


def test_a_tally_adds_up_pixels_and_entries_that_stand_for_many() -> None:
    tally = Tally(3)
    assert tally.statistics().pixels.tolist() == [0, 0, 0]
    tally.add(np.array([[0, 2], [2, 0]], np.uint8), np.array([[0.5, 1.0], [0.75, 0.75]]))
    tally.add(np.array([2, 1], np.uint8), np.array([0.5, 0.25]), pixels=np.array([8.0, 4.0]))
    statistics = tally.statistics()
    assert statistics.pixels.dtype == np.int64
    assert statistics.pixels.tolist() == [2, 4, 10]
    assert statistics.summed_confidence.tolist() == [1.25, 1.0, 5.75]


def test_a_tally_leaves_out_what_is_ignored() -> None:
    tally = Tally(255)
    class_ids = np.array([0, IGNORED, 254], np.uint8)
    tally.add(class_ids, np.ones(3))
    tally.add(class_ids, np.full(3, np.float32(0.5)), pixels=np.full(3, 2.0))
    statistics = tally.statistics()
    assert statistics.pixels.tolist() == [3, *[0] * 253, 3]
    assert statistics.summed_confidence.sum() == 4


def test_a_tally_counts_more_pixels_than_float32_can() -> None:
    tally = Tally(2)
    tally.add(np.array([1], np.uint8), np.ones(1), pixels=np.array([2.0**40]))
    tally.add(np.array([1], np.uint8), np.ones(1))
    assert tally.statistics().pixels.tolist() == [0, 2**40 + 1]

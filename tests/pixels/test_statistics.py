"""Pixel statistics: shares and mean confidences from sums."""

import numpy as np
import pytest

from segray.pixels.statistics import ClassStatistics


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

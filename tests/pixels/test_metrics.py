"""Metrics: figures worked out by hand."""

import math

import numpy as np
import pytest

from segray.pixels.labels import IGNORED
from segray.pixels.metrics import (
    class_dice,
    class_iou,
    class_precision,
    class_recall,
    confusion_matrix,
    mean_dice,
    mean_iou,
    mean_true_iou,
    pixel_accuracy,
    summed_cross_entropy,
)

TRUTH = np.array([[0, 0, 0, 1], [1, 1, 2, 2]], dtype=np.uint8)
PREDICTION = np.array([[0, 0, 1, 1], [1, 2, 2, 0]], dtype=np.uint8)


def test_rows_are_the_truth_and_columns_the_prediction() -> None:
    confusion = confusion_matrix(TRUTH, PREDICTION, 3)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[2, 1, 0], [0, 2, 1], [1, 0, 1]]


def test_iou_and_accuracy_are_those_worked_out_by_hand() -> None:
    confusion = confusion_matrix(TRUTH, PREDICTION, 3)
    # Intersections 2, 2, 1; unions 3 + 3 - 2, 3 + 3 - 2, 2 + 2 - 1.
    assert class_iou(confusion).tolist() == pytest.approx([2 / 4, 2 / 4, 1 / 3])
    assert mean_iou(confusion) == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    assert pixel_accuracy(confusion) == 5 / 8


def test_ignored_pixels_are_in_no_count() -> None:
    truth = np.vstack([TRUTH, np.full((3, 4), IGNORED, dtype=np.uint8)])
    prediction = np.vstack([PREDICTION, np.arange(12, dtype=np.uint8).reshape(3, 4) % 3])
    confusion = confusion_matrix(truth, prediction, 3)
    assert np.array_equal(confusion, confusion_matrix(TRUTH, PREDICTION, 3))


def test_a_class_that_occurs_nowhere_has_no_iou_and_no_part_in_the_mean() -> None:
    confusion = confusion_matrix(TRUTH, PREDICTION, 5)
    iou = class_iou(confusion)
    assert np.isnan(iou).tolist() == [False, False, False, True, True]
    assert mean_iou(confusion) == mean_iou(confusion_matrix(TRUTH, PREDICTION, 3))


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    confusion = confusion_matrix(np.array([0, 0]), np.array([0, 1]), 2)
    assert class_iou(confusion).tolist() == [0.5, 0.0]
    assert mean_iou(confusion) == 0.25
    assert mean_true_iou(confusion) == 0.5


def test_nothing_counted_gives_no_figure() -> None:
    confusion = confusion_matrix(np.full((2, 2), IGNORED), np.zeros((2, 2), dtype=int), 3)
    assert confusion.tolist() == [[0] * 3] * 3
    assert math.isnan(mean_iou(confusion))
    assert math.isnan(mean_true_iou(confusion))
    assert math.isnan(pixel_accuracy(confusion))


def test_255_classes_are_all_told_apart_from_ignored() -> None:
    every = np.arange(256, dtype=np.uint8)
    confusion = confusion_matrix(every, every % 255, 255)
    assert np.array_equal(confusion, np.eye(255, dtype=np.int64))


def test_counts_past_what_float32_holds_are_exact() -> None:
    pixels = 2**24 + 1
    confusion = confusion_matrix(
        np.zeros(pixels, dtype=np.uint8), np.ones(pixels, dtype=np.uint8), 2
    )
    assert confusion.tolist() == [[0, pixels], [0, 0]]


def test_sums_of_counts_past_what_float64_holds_are_exact() -> None:
    confusion = np.array([[2**55, 0], [0, 0]]) + confusion_matrix(np.array([0]), np.array([0]), 2)
    assert int(confusion[0, 0]) == 2**55 + 1
    assert pixel_accuracy(confusion) == 1.0


def test_dice_precision_and_recall_are_those_worked_out_by_hand() -> None:
    confusion = confusion_matrix(TRUTH, PREDICTION, 3)
    # True positives 2, 2, 1; predicted 3, 3, 2; true 3, 3, 2.
    assert class_dice(confusion).tolist() == pytest.approx([4 / 6, 4 / 6, 2 / 4])
    assert mean_dice(confusion) == pytest.approx((4 / 6 + 4 / 6 + 2 / 4) / 3)
    lopsided = np.array([[5, 3], [0, 2]])
    assert class_precision(lopsided).tolist() == pytest.approx([5 / 5, 2 / 5])
    assert class_recall(lopsided).tolist() == pytest.approx([5 / 8, 2 / 2])
    assert class_dice(lopsided).tolist() == pytest.approx([10 / 13, 4 / 7])


def test_precision_is_undefined_where_nothing_was_predicted_and_recall_where_nothing_is() -> None:
    # Class 0 is in the truth alone, class 1 in the prediction alone, class 2 nowhere.
    confusion = np.array([[0, 4, 0], [0, 0, 0], [0, 0, 0]])
    assert np.isnan(class_precision(confusion)).tolist() == [True, False, True]
    assert np.isnan(class_recall(confusion)).tolist() == [False, True, True]
    assert class_dice(confusion)[:2].tolist() == [0, 0]
    assert np.isnan(class_dice(confusion)[2])
    assert mean_dice(confusion) == 0


def test_an_image_larger_than_a_chunk_is_counted_whole() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 3, (2, 700, 800), dtype=np.uint8)
    truth[::7] = IGNORED
    expected = [
        [int(((truth == row) & (prediction == column)).sum()) for column in range(3)]
        for row in range(3)
    ]
    assert confusion_matrix(truth, prediction, 3).tolist() == expected


def test_cross_entropy_is_that_of_the_definition_and_leaves_ignored_pixels_out() -> None:
    logits = np.array([[[0.0, 0.0], [math.log(3), 0.0], [9.0, 9.0]]], dtype=np.float32)
    truth = np.array([[0, 1, IGNORED]], dtype=np.uint8)
    loss, pixels = summed_cross_entropy(logits, truth)
    assert pixels == 2
    assert loss == pytest.approx(-math.log(1 / 2) - math.log(1 / 4))


def test_cross_entropy_of_large_logits_is_finite() -> None:
    logits = np.array([[[1e4, -1e4]]], dtype=np.float32)
    assert summed_cross_entropy(logits, np.array([[0]], dtype=np.uint8)) == (0.0, 1)
    assert summed_cross_entropy(logits, np.array([[1]], dtype=np.uint8)) == (2e4, 1)
    assert summed_cross_entropy(logits, np.array([[IGNORED]], dtype=np.uint8)) == (0.0, 0)

"""Metrics: one confusion matrix, and the figures that are pure functions of it.

With TP the pixels of a class that were predicted as it, FP those of other classes that were, and
FN its pixels that were not: IoU = TP / (TP + FP + FN), Dice = F1 = 2 TP / (2 TP + FP + FN),
precision = TP / (TP + FP), recall = TP / (TP + FN).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from segray.pixels.labels import IGNORED

Confusion = npt.NDArray[np.int64]

# Pixels that are counted at a time: what is made of them stays in the cache, and the memory is
# bounded whatever the size of the image.
_CHUNK = 1 << 18


def confusion_matrix(
    truth: npt.NDArray[np.integer[Any]], prediction: npt.NDArray[np.integer[Any]], classes: int
) -> Confusion:
    """Count pixels by true and by predicted class.

    Integers, because float32 counts stop being exact at 16.7 million pixels a cell.

    Args:
        truth: class ids of any shape; pixels that are `IGNORED` are not counted.
        prediction: class ids of the same shape, each below `classes`.
        classes: how many classes there are, C.

    Returns:
        int64 [C, C], rows = truth, columns = prediction.
    """
    truth, prediction = truth.ravel(), prediction.ravel()
    confusion = np.zeros(classes * classes, dtype=np.int64)
    for start in range(0, truth.size, _CHUNK):
        true = truth[start : start + _CHUNK]
        counted = true != IGNORED
        cells = true[counted].astype(np.int64) * classes
        cells += prediction[start : start + _CHUNK][counted]
        confusion += np.bincount(cells, minlength=classes * classes)
    return confusion.reshape(classes, classes)


def class_iou(confusion: Confusion) -> npt.NDArray[np.float64]:
    """Intersection over union of each class, float64 [C] in [0, 1].

    NaN for a class that is neither in the truth nor predicted: nothing can be said of it.
    """
    intersection = np.diag(confusion)
    return divide(intersection, _predicted(confusion) + _true(confusion) - intersection)


def class_dice(confusion: Confusion) -> npt.NDArray[np.float64]:
    """Dice coefficient (F1 score) of each class, float64 [C] in [0, 1]; NaN where IoU is."""
    return divide(2 * np.diag(confusion), _predicted(confusion) + _true(confusion))


def class_precision(confusion: Confusion) -> npt.NDArray[np.float64]:
    """The share of each class's predicted pixels that are of it, float64 [C] in [0, 1].

    NaN for a class that was not predicted.
    """
    return divide(np.diag(confusion), _predicted(confusion))


def class_recall(confusion: Confusion) -> npt.NDArray[np.float64]:
    """The share of each class's true pixels that were predicted as it, float64 [C] in [0, 1].

    NaN for a class that is not in the truth.
    """
    return divide(np.diag(confusion), _true(confusion))


def mean_iou(confusion: Confusion) -> float:
    """The mean of `class_iou` over the classes that occur; NaN where no pixel was counted."""
    return mean_defined(class_iou(confusion))


def mean_dice(confusion: Confusion) -> float:
    """The mean of `class_dice` over the classes that occur; NaN where no pixel was counted."""
    return mean_defined(class_dice(confusion))


def pixel_accuracy(confusion: Confusion) -> float:
    """The share of counted pixels whose class was predicted, NaN where none was counted."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def summed_cross_entropy(
    logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8]
) -> tuple[float, int]:
    """The cross-entropy of the softmax of logits, summed over the pixels that are not `IGNORED`.

    Args:
        logits: float32 [H, W, C].
        truth: uint8 [H, W] of class ids or `IGNORED`.

    Returns:
        The sum in nats, and over how many pixels it is.
    """
    counted = truth != IGNORED
    values, ids = logits[counted], truth[counted]
    if not len(ids):
        return 0.0, 0
    # Subtracting the largest changes nothing and keeps the exponentials finite.
    values -= values.max(axis=1, keepdims=True)
    total = np.exp(values).sum(axis=1, dtype=np.float64)
    losses = np.log(total) - values[np.arange(len(ids)), ids]
    return float(losses.sum()), len(ids)


def divide(
    numerator: npt.NDArray[np.int64], denominator: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Quotients of counts, float64 of their shape; NaN where the denominator is 0."""
    undefined = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def mean_defined(values: npt.NDArray[np.float64]) -> float:
    """The mean of the values that are not NaN; NaN where there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _true(confusion: Confusion) -> npt.NDArray[np.int64]:
    return confusion.sum(axis=1)


def _predicted(confusion: Confusion) -> npt.NDArray[np.int64]:
    return confusion.sum(axis=0)

"""Metrics: a confusion matrix, and metrics that are pure functions of it.

Let TP be the pixels of a class that are predicted as it, FP the pixels of other classes that are,
and FN its pixels that are not. Then IoU = TP / (TP + FP + FN), Dice = F1 = 2 TP / (2 TP + FP + FN),
precision = TP / (TP + FP), recall = TP / (TP + FN).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from segray.pixels.labels import IGNORED

Confusion = npt.NDArray[np.int64]

# Pixels counted at a time: intermediate results stay in the cache, and the memory is bounded for
# images of any size.
_CHUNK = 1 << 18


def confusion_matrix(
    truth: npt.NDArray[np.integer[Any]], prediction: npt.NDArray[np.integer[Any]], classes: int
) -> Confusion:
    """Count pixels by true and by predicted class.

    The counts are integers, because float32 counts are not exact above 16.7 million pixels per
    cell.

    Args:
        truth: the ground truth, class ids of any shape; `IGNORED` pixels are not counted.
        prediction: class ids of the same shape, each below `classes`.
        classes: C, the number of classes.

    Returns:
        int64 [C, C], rows = ground truth, columns = prediction.
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
    """Compute the intersection over union of each class, float64 [C] in [0, 1].

    NaN (undefined) for a class that occurs neither in the ground truth nor in the prediction.
    """
    intersection = np.diag(confusion)
    return divide(intersection, _predicted(confusion) + _true(confusion) - intersection)


def class_dice(confusion: Confusion) -> npt.NDArray[np.float64]:
    """Compute the Dice coefficient (F1) of each class, float64 [C] in [0, 1]; NaN as for IoU."""
    return divide(2 * np.diag(confusion), _predicted(confusion) + _true(confusion))


def class_precision(confusion: Confusion) -> npt.NDArray[np.float64]:
    """Compute the precision of each class, float64 [C] in [0, 1].

    It is the share of the class's predicted pixels that are correct; NaN for a class that was not
    predicted.
    """
    return divide(np.diag(confusion), _predicted(confusion))


def class_recall(confusion: Confusion) -> npt.NDArray[np.float64]:
    """Compute the recall of each class, float64 [C] in [0, 1].

    It is the share of the class's true pixels that were predicted; NaN for a class that does not
    occur in the ground truth.
    """
    return divide(np.diag(confusion), _true(confusion))


def mean_iou(confusion: Confusion) -> float:
    """Return the mean of `class_iou` over the classes that occur; NaN if no pixel was counted."""
    return mean_defined(class_iou(confusion))


def mean_true_iou(confusion: Confusion) -> float:
    """Return the mean of `class_iou` over the classes in the ground truth; NaN if there are none.

    Unlike `mean_iou`, it has the same classes whatever is predicted: a single pixel that is taken
    for a class without ground truth adds an IoU of 0 to that mean.
    """
    return mean_defined(class_iou(confusion)[_true(confusion) > 0])


def mean_dice(confusion: Confusion) -> float:
    """Return the mean of `class_dice` over the classes that occur; NaN if no pixel was counted."""
    return mean_defined(class_dice(confusion))


def pixel_accuracy(confusion: Confusion) -> float:
    """Return the share of correctly predicted pixels; NaN if none was counted."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def summed_cross_entropy(
    logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8]
) -> tuple[float, int]:
    """Sum the cross-entropy of the softmax of logits over the pixels that are not `IGNORED`.

    Args:
        logits: float32 [H, W, C].
        truth: the ground truth, uint8 [H, W] of class ids or `IGNORED`.

    Returns:
        The sum in nats, and the number of pixels summed over.
    """
    counted = truth != IGNORED
    values, ids = logits[counted], truth[counted]
    if not len(ids):
        return 0.0, 0
    # Subtracting the largest logit changes nothing and keeps the exponentials finite.
    values -= values.max(axis=1, keepdims=True)
    total = np.exp(values).sum(axis=1, dtype=np.float64)
    losses = np.log(total) - values[np.arange(len(ids)), ids]
    return float(losses.sum()), len(ids)


def divide(
    numerator: npt.NDArray[np.int64], denominator: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Divide counts, float64 of their shape; NaN where the denominator is 0."""
    undefined = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def mean_defined(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _true(confusion: Confusion) -> npt.NDArray[np.int64]:
    return confusion.sum(axis=1)


def _predicted(confusion: Confusion) -> npt.NDArray[np.int64]:
    return confusion.sum(axis=0)

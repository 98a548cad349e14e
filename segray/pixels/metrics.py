"""Metrics: one confusion matrix, and the figures that are pure functions of it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from segray.pixels.labels import IGNORED

Confusion = npt.NDArray[np.int64]


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
    counted = truth != IGNORED
    cells = truth[counted].astype(np.int64) * classes + prediction[counted]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def class_iou(confusion: Confusion) -> npt.NDArray[np.float64]:
    """Intersection over union of each class, float64 [C] in [0, 1].

    NaN for a class that is neither in the truth nor predicted: nothing can be said of it.
    """
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - np.diag(confusion)
    return np.divide(intersection, union, out=np.full(len(confusion), np.nan), where=union > 0)


def mean_iou(confusion: Confusion) -> float:
    """The mean of `class_iou` over the classes that occur; NaN where no pixel was counted."""
    iou = class_iou(confusion)
    present = ~np.isnan(iou)
    return float(iou[present].mean()) if present.any() else float("nan")


def pixel_accuracy(confusion: Confusion) -> float:
    """The share of counted pixels whose class was predicted, NaN where none was counted."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")

"""Scores: the pixel counts that a prediction is judged by, and the metrics computed from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segray.pixels.boundary import boundary_counts
from segray.pixels.labels import Labels
from segray.pixels.metrics import (
    Confusion,
    class_dice,
    class_iou,
    class_precision,
    class_recall,
    confusion_matrix,
    divide,
    mean_defined,
    mean_dice,
    mean_iou,
    pixel_accuracy,
)


@dataclass(frozen=True)
class Scores:
    """Counts over the labelled pixels of one or more images, at one resolution.

    All are int64 and exact, so their sums do not depend on the order of the images.

    Attributes:
        confusion: int64 [C, C], rows = ground truth, columns = prediction.
        boundary_intersection: int64 [C], see `segray.pixels.boundary.boundary_counts`.
        boundary_union: int64 [C], likewise.
    """

    confusion: Confusion
    boundary_intersection: npt.NDArray[np.int64]
    boundary_union: npt.NDArray[np.int64]

    @classmethod
    def compare(
        cls, truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], classes: int
    ) -> "Scores":
        """Count the pixels of one image.

        Args:
            truth: the ground truth, uint8 [H, W] of class ids or `segray.pixels.labels.IGNORED`.
            prediction: uint8 [H, W] of class ids.
            classes: C, the number of classes.
        """
        confusion = confusion_matrix(truth, prediction, classes)
        return cls(confusion, *boundary_counts(truth, prediction, classes))

    @classmethod
    def zero(cls, classes: int) -> "Scores":
        """Return counts of zero."""
        none = np.zeros(classes, dtype=np.int64)
        return cls(np.zeros((classes, classes), dtype=np.int64), none, none)

    @classmethod
    def from_columns(cls, table: pa.Table, prefix: str, classes: int) -> "Scores":
        """Sum the counts of many images, from the columns that `to_columns` made for each."""
        cells, counts, boundary = (
            pc.list_flatten(table[f"{prefix}_{name}"]).to_numpy()
            for name in ("cells", "counts", "boundary")
        )
        confusion = np.zeros(classes * classes, dtype=np.int64)
        np.add.at(confusion, cells, counts)
        intersection, union = boundary.reshape(-1, 2, classes).sum(axis=0)
        return cls(confusion.reshape(classes, classes), intersection, union)

    def to_columns(self, prefix: str) -> dict[str, npt.NDArray[np.int64]]:
        """Return the counts as lists of numbers.

        Of the confusion matrix only the non-zero cells are listed, because 255 classes have 65,025
        cells. The boundary list has the intersection of each class, then the union of each class.
        """
        flat = self.confusion.ravel()
        cells = np.flatnonzero(flat)
        boundary = np.concatenate([self.boundary_intersection, self.boundary_union])
        return {
            f"{prefix}_cells": cells,
            f"{prefix}_counts": flat[cells],
            f"{prefix}_boundary": boundary,
        }

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(
            self.confusion + other.confusion,
            self.boundary_intersection + other.boundary_intersection,
            self.boundary_union + other.boundary_union,
        )

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return len(self.confusion)

    @property
    def pixels(self) -> int:
        """The number of labelled pixels."""
        return int(self.confusion.sum())

    @property
    def mean_iou(self) -> float | None:
        """The mean IoU of the classes that occur; None if no pixel was counted."""
        return number(mean_iou(self.confusion))

    @property
    def accuracy(self) -> float | None:
        """The share of correctly predicted pixels; None if no pixel was counted."""
        return number(pixel_accuracy(self.confusion))

    @property
    def boundary_iou(self) -> npt.NDArray[np.float64]:
        """The boundary IoU of each class, float64 [C] in [0, 1]; NaN for absent classes."""
        return divide(self.boundary_intersection, self.boundary_union)

    def class_figures(self) -> dict[str, list[float | None]]:
        """Return the metrics of the classes by name, each a list [C]; None if undefined."""
        figures = {
            "iou": class_iou(self.confusion),
            "dice": class_dice(self.confusion),
            "precision": class_precision(self.confusion),
            "recall": class_recall(self.confusion),
            "boundary_iou": self.boundary_iou,
        }
        return {kind: [number(v) for v in values] for kind, values in figures.items()}

    def to_json(self, labels: Labels) -> dict[str, Any]:
        """Return all metrics and the counts that they come from, JSON-ready."""
        columns: dict[str, list[Any]] = {
            **self.class_figures(),
            "true_pixels": self.confusion.sum(axis=1).tolist(),
            "predicted_pixels": self.confusion.sum(axis=0).tolist(),
            "boundary_intersection": self.boundary_intersection.tolist(),
            "boundary_union": self.boundary_union.tolist(),
        }
        return {
            "pixels": self.pixels,
            "accuracy": self.accuracy,
            "mean_iou": self.mean_iou,
            "mean_dice": number(mean_dice(self.confusion)),
            "mean_boundary_iou": number(mean_defined(self.boundary_iou)),
            "classes": {
                name: {kind: values[i] for kind, values in columns.items()}
                for i, name in enumerate(labels.names)
            },
            "confusion": self.confusion.tolist(),
        }


def number(value: float) -> float | None:
    """Return a value for JSON and Parquet: None for NaN, which means undefined."""
    return None if np.isnan(value) else float(value)

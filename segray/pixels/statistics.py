"""Pixel statistics of one mask: the pixels of each class, and the model's confidence."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.pixels.labels import IGNORED
from segray.pixels.regions import RegionFinder


@dataclass(frozen=True)
class ClassStatistics:
    """Sums over the pixels of a mask, one entry per class.

    Attributes:
        pixels: int64 [C], the number of pixels of each class; their sum is width times height.
        summed_confidence: float64 [C], the sum over those pixels of the softmax probability of the
            class that they were assigned. For large images it is partly a quadrature: see
            `segray.pixels.masks.segment_logits`.
    """

    pixels: npt.NDArray[np.int64]
    summed_confidence: npt.NDArray[np.float64]

    @property
    def fractions(self) -> npt.NDArray[np.float64]:
        """The share of each class in all pixels, float64 [C] in [0, 1]."""
        return self.pixels / self.pixels.sum()

    @property
    def confidences(self) -> list[float | None]:
        """The mean confidence of each class in [0, 1], None for a class without pixels."""
        return [
            # Rounding may make a mean of ones slightly greater than one.
            min(1.0, total / count) if count else None
            for total, count in zip(self.summed_confidence, self.pixels.tolist(), strict=True)
        ]


class Tally:
    """Sums the statistics of a mask, part by part.

    Args:
        classes: the number of classes, at most 255.
        regions: is told the confidence of entries with a place.
    """

    def __init__(self, classes: int, regions: RegionFinder | None = None) -> None:
        self._classes, self._regions = classes, regions
        # An entry for each value of uint8. Counts as float64 are exact up to 2**53.
        self._pixels = np.zeros(256)
        self._confidence = np.zeros(256)

    def add(
        self,
        class_ids: npt.NDArray[np.uint8],
        confidence: npt.NDArray[np.floating],
        pixels: npt.NDArray[np.float64] | None = None,
        places: npt.NDArray[np.intp] | None = None,
    ) -> None:
        """Add pixels to the sums.

        Args:
            class_ids: uint8 of any shape; 255 (`labels.IGNORED`) is not counted.
            confidence: the confidences, of the same shape, in [0, 1].
            pixels: the number of pixels that each entry stands for, of the same shape; default:
                one.
            places: the position of each entry in the flattened mask, of the same shape, for the
                regions; an entry that stands for more pixels has that of any of them.
        """
        # Convert once; bincount would convert twice.
        entries = class_ids.ravel().astype(np.intp)
        if pixels is None:
            self._pixels += np.bincount(entries, minlength=256)
        else:
            self._pixels += np.bincount(entries, pixels.ravel(), minlength=256)
            confidence = confidence * pixels
        self._confidence += np.bincount(entries, confidence.ravel(), minlength=256)
        if self._regions and places is not None:
            counted = class_ids != IGNORED
            self._regions.note(places[counted], confidence[counted])

    def statistics(self) -> ClassStatistics:
        """Return the sums so far."""
        own = slice(self._classes)
        return ClassStatistics(self._pixels[own].astype(np.int64), self._confidence[own].copy())

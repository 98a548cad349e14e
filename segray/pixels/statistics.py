"""Pixel statistics of one mask: how much of it is each class, and how sure the model was."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ClassStatistics:
    """Sums over the pixels of a mask, one entry per class.

    Attributes:
        pixels: int64 [C], the pixels of each class; they add up to width times height.
        summed_confidence: float64 [C], the sum over those pixels of the softmax probability of
            the class that they were given. Of large images it is in parts a quadrature: see
            `segray.pixels.masks.segment_logits`.
    """

    pixels: npt.NDArray[np.int64]
    summed_confidence: npt.NDArray[np.float64]

    @property
    def fractions(self) -> npt.NDArray[np.float64]:
        """float64 [C] in [0, 1], the share of each class in all pixels."""
        return self.pixels / self.pixels.sum()

    @property
    def confidences(self) -> list[float | None]:
        """The mean confidence of each class in [0, 1], None for a class with no pixel."""
        return [
            # Rounding may carry a mean of ones a hair past one.
            min(1.0, total / count) if count else None
            for total, count in zip(self.summed_confidence, self.pixels.tolist(), strict=True)
        ]


class Tally:
    """Adds up the statistics of a mask, part by part.

    Args:
        classes: how many there are, at most 255.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        # An entry for each value of uint8. Counts as float64 are exact up to 2**53.
        self._pixels = np.zeros(256)
        self._confidence = np.zeros(256)

    def add(
        self,
        class_ids: npt.NDArray[np.uint8],
        confidence: npt.NDArray[np.floating],
        pixels: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Count.

        Args:
            class_ids: uint8, of any shape; 255 (`labels.IGNORED`) is in no count.
            confidence: of the same shape, in [0, 1].
            pixels: of the same shape, how many pixels each entry stands for; one, if left out.
        """
        # Once, where bincount would do it twice.
        entries = class_ids.ravel().astype(np.intp)
        if pixels is None:
            self._pixels += np.bincount(entries, minlength=256)
        else:
            self._pixels += np.bincount(entries, pixels.ravel(), minlength=256)
            confidence = confidence * pixels
        self._confidence += np.bincount(entries, confidence.ravel(), minlength=256)

    def statistics(self) -> ClassStatistics:
        """The sums so far."""
        own = slice(self._classes)
        return ClassStatistics(self._pixels[own].astype(np.int64), self._confidence[own].copy())

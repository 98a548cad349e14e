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
            the class that they were given.
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

"""Expected IoU: how well a mask matches a ground truth that nobody has drawn.

Let p be the softmax probability of a class at a pixel, and m be 1 where the class won and 0
elsewhere. If the probabilities are calibrated, then the intersection of the class's mask and its
unknown ground truth is expected to be I = sum(p m), and their union U = sum(m + p - p m). The
expected IoU is I / U; its sums over images are divided once, as those of IoU are. It knows nothing
of errors that the network is sure of.

sum(m) and sum(p m) are the pixels and the summed confidence of `ClassStatistics`. What is left is
sum(p), the expected pixels of the class; a few of the network's logits are enough for its part
where another class won.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.pixels.metrics import mean_defined
from segray.pixels.statistics import ClassStatistics

# Of at least 96 rows or columns of logits, every third one is sampled. An even step was measured to
# be off; it meets the same phase of the network's up-sampling again and again.
_STEP, _LEAST_SIDE = 3, 96
# The least share of an image that mask and ground truth of a class together are expected to cover
# for the class to count as there. Every class has some probability everywhere.
_LEAST_SHARE = 0.001


class ExpectedPixels:
    """Sums the probability of each class, from logits that arrive row by row.

    Args:
        shape: h, w and C of all logits together.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._down, self._along = (_STEP if side >= _LEAST_SIDE else 1 for side in shape[:2])
        self._row, self._samples = self._down // 2, 0
        self._sums = np.zeros(shape[2])

    def add(self, logits: npt.NDArray[np.float32]) -> None:
        """Add the next rows of logits, float32 [n, w, C]."""
        some = logits[self._row :: self._down, self._along // 2 :: self._along]
        self._row += len(some) * self._down - len(logits)
        # Class by class, because numpy takes several times as long over a short axis.
        shares = np.moveaxis(some, -1, 0).reshape(len(self._sums), -1).copy()
        winner = shares.argmax(axis=0)
        shares -= shares.max(axis=0)
        np.exp(shares, out=shares)
        shares /= shares.sum(axis=0)
        # Where a class won, its probability is counted for every pixel already.
        shares[winner, np.arange(len(winner))] = 0
        self._sums += shares.sum(axis=1, dtype=np.float64)
        self._samples += len(winner)

    def finish(self, statistics: ClassStatistics) -> npt.NDArray[np.float64]:
        """Return the expected pixels of each class, float64 [C], when all rows have been added.

        Args:
            statistics: those of the mask.
        """
        elsewhere = self._sums * (statistics.pixels.sum() / self._samples)
        return statistics.summed_confidence + elsewhere


@dataclass(frozen=True)
class ExpectedOverlap:
    """The expected overlap of masks and their unknown ground truth, for each class.

    Attributes:
        intersection: float64 [..., C], in pixels.
        union: float64 [..., C], in pixels.
        there: bool [..., C], True if the union is more than a thousandth of the image, or of one of
            the images.
    """

    intersection: npt.NDArray[np.float64]
    union: npt.NDArray[np.float64]
    there: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        pixels: npt.NDArray[np.int64],
        summed_confidence: npt.NDArray[np.float64],
        expected_pixels: npt.NDArray[np.float64],
    ) -> "ExpectedOverlap":
        """Return the overlap in images, of arrays [..., C].

        Args:
            pixels: see `ClassStatistics`.
            summed_confidence: likewise.
            expected_pixels: see `ExpectedPixels.finish`.
        """
        union = pixels + expected_pixels - summed_confidence
        least = _LEAST_SHARE * pixels.sum(axis=-1, keepdims=True)
        return cls(summed_confidence, union, union > least)

    @classmethod
    def zero(cls, classes: int) -> "ExpectedOverlap":
        """Return the overlap in no image."""
        return cls(np.zeros(classes), np.zeros(classes), np.zeros(classes, dtype=np.bool_))

    def sum(self) -> "ExpectedOverlap":
        """Return the overlap in all images together, arrays [C], of arrays [N, C]."""
        return ExpectedOverlap(
            self.intersection.sum(axis=0),
            self.union.sum(axis=0),
            np.logical_or.reduce(self.there, axis=0),
        )

    def __add__(self, other: "ExpectedOverlap") -> "ExpectedOverlap":
        return ExpectedOverlap(
            self.intersection + other.intersection,
            self.union + other.union,
            self.there | other.there,
        )

    def class_iou(self, exponent: float = 1.0) -> npt.NDArray[np.float64]:
        """Compute the expected IoU of each class, float64 [..., C] in [0, 1].

        NaN for a class that is not there.

        Args:
            exponent: the correction of the model, see `segray.model.bundle.Bundle.iou_exponent`.
        """
        undefined = np.full(self.union.shape, np.nan)
        ratio = np.divide(self.intersection, self.union, out=undefined, where=self.there)
        return np.minimum(1.0, ratio) ** exponent

    def mean_iou(self, exponent: float = 1.0) -> float:
        """Return the mean of `class_iou` over the classes that are there; NaN if none is."""
        return mean_defined(self.class_iou(exponent))

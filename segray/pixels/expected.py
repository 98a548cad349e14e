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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.pixels.metrics import mean_defined
from segray.pixels.statistics import ClassStatistics

# Of at least 96 rows or columns of logits, every third one is sampled. An even step was measured to
# be off; it meets the same phase of the network's up-sampling again and again.
_STEP, _LEAST_SIDE = 3, 96
# A class without a pixel in the mask counts as there if it is expected to cover more than this
# share of the image. Every class has some probability everywhere.
_LEAST_SHARE = 0.001
# The part of its usual share from which on a class counts fully in the mean of an image.
_FULL_SHARE = 1 / 6
#: The usual share of a class of which nothing is known, see `find_usual_shares`.
USUAL_SHARE = 0.04


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
        pixels: int64 [..., C], those of the masks.
    """

    intersection: npt.NDArray[np.float64]
    union: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.int64]

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
        return cls(summed_confidence, pixels + expected_pixels - summed_confidence, pixels)

    @classmethod
    def zero(cls, classes: int) -> "ExpectedOverlap":
        """Return the overlap in no image."""
        return cls(np.zeros(classes), np.zeros(classes), np.zeros(classes, dtype=np.int64))

    def sum(self) -> "ExpectedOverlap":
        """Return the overlap in all images together, arrays [C], of arrays [N, C]."""
        return ExpectedOverlap(
            self.intersection.sum(axis=0), self.union.sum(axis=0), self.pixels.sum(axis=0)
        )

    def __add__(self, other: "ExpectedOverlap") -> "ExpectedOverlap":
        return ExpectedOverlap(
            self.intersection + other.intersection,
            self.union + other.union,
            self.pixels + other.pixels,
        )

    def class_iou(self, exponent: float = 1.0) -> npt.NDArray[np.float64]:
        """Compute the expected IoU of each class, float64 [..., C] in [0, 1].

        NaN for a class that is not there: it has no pixel in the masks, and is expected to cover a
        thousandth of the pixels at most.

        Args:
            exponent: the correction of the model, see `segray.model.bundle.Bundle.iou_exponent`.
        """
        there = (self.pixels > 0) | (self.union > _LEAST_SHARE * self._total)
        undefined = np.full(self.union.shape, np.nan)
        ratio = np.divide(self.intersection, self.union, out=undefined, where=there)
        return np.minimum(1.0, ratio) ** exponent

    def mean_iou(self, exponent: float = 1.0) -> float:
        """Return the mean of `class_iou` over the classes that are there; NaN if none is.

        This is for many images together, of arrays [C]. For one image, see `image_iou`.
        """
        return mean_defined(self.class_iou(exponent))

    def image_iou(
        self, usual_shares: Sequence[float], exponent: float = 1.0
    ) -> npt.NDArray[np.float64]:
        """Compute the mean of `class_iou` of each image, float64 [...], weighted by `weights`.

        A plain mean would let a class that won a few stray pixels, or just has some probability,
        halve the figure of an otherwise perfect mask. A class that is not there counts as 0, with
        the little weight that it has.

        Args:
            usual_shares: see `find_usual_shares`.
            exponent: see `class_iou`.
        """
        weights, ious = self.weights(usual_shares), np.nan_to_num(self.class_iou(exponent))
        return (weights * ious).sum(axis=-1) / weights.sum(axis=-1)

    def weights(self, usual_shares: Sequence[float]) -> npt.NDArray[np.float64]:
        """Compute how much each class counts in the mean of an image, float64 [..., C] in [0, 1].

        It is 1 for a class that is expected to cover at least a sixth of its usual share of an
        image, and below that proportional to what it is expected to cover.

        Args:
            usual_shares: see `find_usual_shares`.
        """
        expected = self.union - self.pixels + self.intersection
        return np.clip(expected / (_FULL_SHARE * np.array(usual_shares) * self._total), 0, 1)

    @property
    def _total(self) -> npt.NDArray[np.int64]:
        """The pixels of each image, int64 [..., 1]."""
        return self.pixels.sum(axis=-1, keepdims=True)


def find_usual_shares(pixels: npt.NDArray[np.int64]) -> list[float]:
    """Return the usual share of each class: the mean over the images that have the class, [C].

    Args:
        pixels: int64 [N, C], the labelled pixels of each class in each image.

    Returns:
        0 to 1, and `USUAL_SHARE` for a class that no image has.
    """
    shares = pixels / np.maximum(1, pixels.sum(axis=1, keepdims=True))
    images = (pixels > 0).sum(axis=0)
    means = np.divide(
        shares.sum(axis=0), images, out=np.full(len(images), USUAL_SHARE), where=images > 0
    )
    return [float(f"{mean:.4g}") for mean in means]

"""Histograms of the classes over all segmented images, and the sums that go with them."""

import numpy as np
import numpy.typing as npt

from segray.pixels.expected import ExpectedOverlap

#: Equally wide bins, from 0 to 1, of a histogram.
BINS = 2000


class ClassHistograms:
    """Sums and histograms for each of C classes, over any number of images.

    Attributes:
        pixels: int64 [C], pixels of the class in all images.
        images: int64 [C], images with at least one pixel of the class.
        shares: int64 [C, BINS], these images by the share of the class in them.
        confidences: int64 [C, BINS], these images by the mean confidence of the class in them.
        overlap: the expected overlap in all images together.
    """

    def __init__(self, classes: int) -> None:
        self.pixels, self.images = np.zeros((2, classes), dtype=np.int64)
        self.shares, self.confidences = np.zeros((2, classes, BINS), dtype=np.int64)
        self.overlap = ExpectedOverlap.zero(classes)

    def add(
        self,
        pixels: npt.NDArray[np.int64],
        shares: npt.NDArray[np.float64],
        confidences: npt.NDArray[np.float64],
        expected_pixels: npt.NDArray[np.float64],
    ) -> None:
        """Add N images.

        Args:
            pixels: int64 [N, C], pixels of each class.
            shares: float64 [N, C], the share of each class in its image, 0 to 1.
            confidences: float64 [N, C], mean confidence of each class, 0 to 1; NaN where an image
                has no pixel of it.
            expected_pixels: float64 [N, C], see `segray.pixels.expected`.
        """
        present = pixels > 0
        self.pixels += pixels.sum(axis=0)
        self.images += present.sum(axis=0)
        summed = np.nan_to_num(pixels * confidences)
        self.overlap += ExpectedOverlap.of(pixels, summed, expected_pixels).sum()
        for class_id, rows in enumerate(present.T):
            self.shares[class_id] += _count_bins(shares[rows, class_id])
            self.confidences[class_id] += _count_bins(confidences[rows, class_id])

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """float64 [C], the mean confidence over the pixels of each class; NaN where it has none."""
        with np.errstate(invalid="ignore"):
            # The expected intersection is the sum of the confidence.
            return self.overlap.intersection / self.pixels


def _count_bins(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Count the values, 0 to 1, that lie in each bin, int64 [BINS]; NaN lies in none."""
    known = values[~np.isnan(values)]
    # 0.29 * 2000 may come out a hair below 580.
    bins = np.clip((known * BINS + 1e-6).astype(np.int64), 0, BINS - 1)
    return np.bincount(bins, minlength=BINS)

"""Drift: how far the images of a segmentation are from those that its model was trained on.

Each feature of the images (`segray.model.reference`) is compared by the Cramér-von Mises distance
of two distributions with the cumulative shares F and G, the root of 3 ∫ (F - G)² d(F + G)/2. It is
0 if they are equal, and 1 if no value of one is below a value of the other. For a shift of normally
distributed values by a small part of their standard deviation it is about half that part.

Samples of one distribution differ, too. What chance explains follows from the numbers of images, so
that few images are not taken for a drift. A distance beyond that may still be so small that nobody
needs to know of it, as among a million images: then the feature has not moved. Nor has it if its
values differ by no more than a bin of the histograms. All of this holds for images that are
independent of each other: the frames of a video are fewer images than they seem.
https://en.wikipedia.org/wiki/Cram%C3%A9r%E2%80%93von_Mises_criterion
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.model.reference import BINS, Counts, Feature, features_of
from segray.pixels.labels import Labels

# The greatest probability that images of the same distribution seem to have moved, by any feature.
_FALSE_ALARMS = 0.02
#: The distance up to which a feature has not moved: about a third of a standard deviation.
LEAST = 0.15


@dataclass(frozen=True)
class FeatureDrift:
    """The drift of a feature.

    Attributes:
        feature: the feature.
        reference: int64 [BINS], the images of the model by the feature.
        counts: int64 [BINS], the images of the segmentation by it.
        distance: the distance of the two distributions, 0 to 1.
        chance: the distance that chance explains.
    """

    feature: Feature
    reference: Counts
    counts: Counts
    distance: float
    chance: float

    @property
    def moved(self) -> bool:
        """True if the distance is larger than chance explains, and worth knowing."""
        return self.distance > max(self.chance, LEAST)

    @property
    def means(self) -> tuple[float, float]:
        """The mean value of the images of the model, and of the segmentation, to a bin."""
        scale = self.feature.scale
        return scale.average(self.reference), scale.average(self.counts)

    def to_json(self) -> dict[str, Any]:
        """Return the figures, JSON-ready."""
        reference, mean = self.means
        return {
            "distance": round(self.distance, 4),
            "chance": round(min(1.0, self.chance), 4),
            "moved": self.moved,
            "mean": mean,
            "reference_mean": reference,
        }


@dataclass(frozen=True)
class Drift:
    """The drift of a segmentation.

    Attributes:
        features: that of each feature, the most moved first.
    """

    features: list[FeatureDrift]

    @property
    def can_tell(self) -> bool:
        """True if there are enough images to tell whether a feature has moved."""
        return self.chance < 1

    @property
    def moved(self) -> list[FeatureDrift]:
        """The features that have moved."""
        return [feature for feature in self.features if feature.moved]

    @property
    def chance(self) -> float:
        """The largest distance that chance explains, of the feature with the most images."""
        return min(feature.chance for feature in self.features)

    @property
    def distance(self) -> float | None:
        """The largest distance of a feature that has moved, or 0; None of too few images."""
        if not self.can_tell:
            return None
        return max((feature.distance for feature in self.moved), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return all figures, JSON-ready."""
        return {
            "distance": None if self.distance is None else round(self.distance, 4),
            "features": {drift.feature.name: drift.to_json() for drift in self.features},
        }


class DriftCounter:
    """Counts the images of a segmentation by their features.

    Args:
        reference: the reference of the model, see `segray.model.reference.read_reference`.
        labels: the classes of the model.

    Attributes:
        columns: the columns of results that it needs.
    """

    def __init__(self, reference: Mapping[str, Counts], labels: Labels) -> None:
        self._features = features_of(labels)
        self._reference = [reference[feature.name] for feature in self._features]
        self._counts = [np.zeros(BINS, dtype=np.int64) for _ in self._features]
        self._rarity = [_rate_rarity(counts) for counts in self._reference]
        self.columns = sorted({name for feature in self._features for name in feature.columns})

    def add(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """Add rows of results.

        Returns:
            How unlike the images of the model each image is, float64 [N]; the higher, the more.
        """
        columns = {name: table[name].to_numpy() for name in self.columns}
        unlike = np.zeros(len(table))
        for number, feature in enumerate(self._features):
            bins = feature.find_bins(columns)
            self._counts[number] += np.bincount(bins, minlength=BINS)
            unlike += self._rarity[number][bins]
        return unlike

    def finish(self) -> Drift | None:
        """Return the drift; None if there are no images."""
        if not self._counts[0].any():
            return None
        level = _FALSE_ALARMS / len(self._features)
        drifts = [
            FeatureDrift(
                feature,
                reference,
                counts,
                _measure_beyond_bin(reference, counts),
                explain_by_chance(int(reference.sum()), int(counts.sum()), level),
            )
            for feature, reference, counts in zip(
                self._features, self._reference, self._counts, strict=True
            )
        ]
        return Drift(sorted(drifts, key=lambda drift: (not drift.moved, -drift.distance)))


def measure_distance(first: Counts, second: Counts) -> float:
    """Return the distance of two histograms with the same bins, 0 to 1.

    Values are taken to be spread evenly over their bins.
    """
    shares = first / first.sum(), second / second.sum()
    gaps = np.cumsum(shares[0] - shares[1])
    before = np.concatenate([[0.0], gaps[:-1]])
    # The mean of a square that goes linearly from one gap to the next.
    squares = (before**2 + before * gaps + gaps**2) / 3
    return math.sqrt(3 * float(squares @ (shares[0] + shares[1])) / 2)


def _measure_beyond_bin(first: Counts, second: Counts) -> float:
    """Return the distance that is left if the values of one histogram may be moved by a bin.

    Values that all lie at an edge of two bins, such as the proportions of square images, would
    otherwise have the largest distance from values that differ by a pixel.
    """
    lower, higher = np.append(second[1:], 0), np.append(0, second[:-1])
    lower[0] += second[0]
    higher[-1] += second[-1]
    return min(measure_distance(first, moved) for moved in (lower, second, higher))


def explain_by_chance(first: int, second: int, level: float) -> float:
    """Return the distance that two samples of one distribution exceed by chance.

    The criterion of two large samples is distributed as Σ X² / (jπ)² over all j from 1, with
    normal X. Its first term decides on large values, and the others raise their probability by the
    root of 2.

    Args:
        first: the number of values of the first sample.
        second: that of the second.
        level: the probability with which they do, at most 0.1.
    """
    criterion = (NormalDist().inv_cdf(1 - level / math.sqrt(8)) / math.pi) ** 2
    return math.sqrt(3 * criterion * (1 / first + 1 / second))


def _rate_rarity(counts: Counts) -> npt.NDArray[np.float64]:
    """Return how rare a value in each bin, or further out, is: float64 [BINS], at least 0."""
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    rank = np.minimum(below, above) + 1
    return -np.log(np.minimum(1, 2 * rank / (counts.sum() + 1)))

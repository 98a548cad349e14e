"""The reference of a model: what its images look like, and what it makes of images it never saw.

It is a file of the bundle, ``reference.json``, with a histogram of each feature. A segmentation
compares its own images with it (`segray.bulk.drift`).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segray.errors import InputError
from segray.model.check import shorten
from segray.pixels.appearance import APPEARANCE
from segray.pixels.labels import Labels
from segray.storage.files import read_bytes, write_bytes
from segray.storage.uri import exists, join_uri

#: The file in a bundle.
REFERENCE = "reference.json"
#: The number of bins of a histogram.
BINS = 512

# 2 counts stray pixels as none, and has an expected IoU in which a class counts by its share.
_FORMAT_VERSION = 2
_MOST_IMAGES = 1 << 40
# The maximum size of the file in bytes; 255 classes take a tenth of it.
_MOST_TEXT = 1 << 22

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scale:
    """The division of a range of values into bins of equal width on a function of the value.

    Attributes:
        low: the lower end; values below it are in the first bin.
        high: the upper end; values above it are in the last bin.
        bend: the function.
        unbend: its inverse.
    """

    low: float
    high: float
    bend: Callable[[Values], Values] = np.positive
    unbend: Callable[[Values], Values] = np.positive

    def find_bins(self, values: Values) -> npt.NDArray[np.intp]:
        """Return the bins of values, intp [N]."""
        low, high = self.bend(np.array([self.low, self.high]))
        places = (self.bend(values) - low) / (high - low)
        # 0.29 * 100 may come out a hair below 29.
        return np.clip(places * BINS + 1e-6, 0, BINS - 1).astype(np.intp)

    def value_at(self, place: float) -> float:
        """Return the value at a place between the ends, which are at 0 and 1."""
        return float(self._values_at(np.array(place)))

    def average(self, counts: Counts) -> float:
        """Return the mean value of a histogram, int64 [BINS], by the middles of its bins."""
        return float(np.average(self._values_at((np.arange(BINS) + 0.5) / BINS), weights=counts))

    def _values_at(self, places: Values) -> Values:
        low, high = self.bend(np.array([self.low, self.high]))
        return self.unbend(low + places * (high - low))


@dataclass(frozen=True)
class Feature:
    """A number that describes an image, or what a model made of it.

    Attributes:
        name: its name; that of the column, if it is one.
        columns: the columns of results that it depends on.
        compute: the function that computes it from these.
        scale: the bins of its histogram.
    """

    name: str
    columns: tuple[str, ...]
    compute: Callable[..., Values]
    scale: Scale

    def find_bins(self, columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.intp]:
        """Return the bins of N images, intp [N].

        Args:
            columns: numbers [N], by the names of the columns.
        """
        values = (columns[name].astype(np.float64) for name in self.columns)
        return self.scale.find_bins(self.compute(*values))


_SCALES = {
    "brightness": Scale(0, 1),
    "contrast": Scale(0, 0.5),
    "saturation": Scale(0, 1),
    "warmth": Scale(-0.5, 0.5),
    "sharpness": Scale(0, 2),
    "upper_detail": Scale(0, 1),
}
_SIZE = ("width", "height")
_LEAST_SHARE = 0.001

#: The features of an image itself.
IMAGE_FEATURES = (
    *(Feature(name, (name,), np.positive, _SCALES[name]) for name in APPEARANCE),
    Feature("aspect", _SIZE, np.divide, Scale(1 / 8, 8, np.log2, np.exp2)),
    Feature("size", _SIZE, np.multiply, Scale(2**8, 2**32, np.log2, np.exp2)),
)


def mask_features(labels: Labels) -> tuple[Feature, ...]:
    """Return the features of the mask that a model made: its expected IoU, the shares of classes.

    Small shares differ more from each other than large ones, so their bins are narrower. Shares of
    less than a thousandth are a few stray pixels, and count as 0.
    """
    share = Scale(0, 1, np.sqrt, np.square)
    columns = (f"fraction_{name}" for name in labels.names)
    return (
        Feature("expected_iou", ("expected_iou",), np.positive, Scale(0, 1)),
        *(Feature(column, (column,), _without_strays, share) for column in columns),
    )


def _without_strays(shares: Values) -> Values:
    return np.where(shares < _LEAST_SHARE, 0.0, shares)


def features_of(labels: Labels) -> tuple[Feature, ...]:
    """Return all features: those of an image, and those of its mask."""
    return (*IMAGE_FEATURES, *mask_features(labels))


def count_features(
    features: Iterable[Feature], columns: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Counts]:
    """Return the histogram of each feature over N images, int64 [BINS], by its name.

    Args:
        features: the features.
        columns: numbers [N], by the names of the columns.
    """
    return {
        feature.name: np.bincount(feature.find_bins(columns), minlength=BINS)
        for feature in features
    }


def write_reference(uri: str, digest: str, histograms: Mapping[str, Counts]) -> None:
    """Write the reference of a model into its bundle.

    Args:
        uri: the URI of the bundle.
        digest: identifies the model, see `segray.model.bundle.Bundle`.
        histograms: int64 [BINS] for each feature, by its name.

    Raises:
        InputError: the file cannot be written.
    """
    document = {
        "format_version": _FORMAT_VERSION,
        "model": digest,
        "histograms": {name: counts.tolist() for name, counts in histograms.items()},
    }
    write_bytes(join_uri(uri, REFERENCE), json.dumps(document).encode())


def read_reference(uri: str, digest: str, labels: Labels) -> dict[str, Counts] | None:
    """Read the histograms of a model's reference, by the names of its features.

    Args:
        uri: the URI of the bundle.
        digest: identifies the model.
        labels: its classes.

    Returns:
        int64 [BINS] for each feature; None if the bundle is of an earlier version of segray, and
        has no reference or one with other histograms.

    Raises:
        InputError: the file cannot be read, is damaged, or is of another model.
    """
    file = join_uri(uri, REFERENCE)
    if not exists(file):
        return None
    text = read_bytes(file, _MOST_TEXT)
    try:
        document = json.loads(text)
        version = document["format_version"]
        if version == 1:
            return None
        if version != _FORMAT_VERSION:
            raise ValueError(f"the format version {version!r}")
        model, histograms = document["model"], document["histograms"]
        names = [feature.name for feature in features_of(labels)]
        counts = {name: _parse_counts(histograms[name]) for name in names}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{file} is no reference of a model ({type(error).__name__}: {shorten(error)}): copy "
            "the whole bundle again, or delete this file to do without it"
        ) from error
    if model != digest:
        raise InputError(
            f"{file} is of another model than the files beside it: copy the whole bundle again, or "
            "delete this file to do without it"
        )
    return counts


def _parse_counts(numbers: list[int]) -> Counts:
    counts = np.array(numbers)
    if counts.shape != (BINS,) or counts.dtype != np.int64 or not counts.any():
        raise ValueError(f"a histogram is not {BINS} numbers of images")
    if not 0 <= counts.min() <= counts.max() <= _MOST_IMAGES:
        raise ValueError("a histogram counts impossible numbers of images")
    return counts

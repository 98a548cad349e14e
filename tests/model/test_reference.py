"""The reference of a model in its bundle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segray.errors import InputError
from segray.model.reference import (
    BINS,
    IMAGE_FEATURES,
    REFERENCE,
    features_of,
    read_reference,
    write_reference,
)
from segray.pixels.labels import Labels

DIGEST = "0123456789abcdef"


def make_histograms(labels: Labels) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {feature.name: rng.integers(0, 9, BINS) for feature in features_of(labels)}


def test_what_was_written_is_read(tmp_path: Path, labels: Labels) -> None:
    written = make_histograms(labels)
    write_reference(str(tmp_path), DIGEST, written)
    read = read_reference(str(tmp_path), DIGEST, labels)
    assert read is not None
    assert {name: counts.tolist() for name, counts in read.items()} == {
        name: counts.tolist() for name, counts in written.items()
    }


def test_an_older_bundle_has_none(tmp_path: Path, labels: Labels) -> None:
    assert read_reference(str(tmp_path), DIGEST, labels) is None


def test_one_of_an_earlier_version_is_none(tmp_path: Path, labels: Labels) -> None:
    write_reference(str(tmp_path), DIGEST, make_histograms(labels))
    file = tmp_path / REFERENCE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format_version": 1}))
    assert read_reference(str(tmp_path), DIGEST, labels) is None


def _damage(document: Any, key: str, value: Any) -> None:
    if key in document:
        document[key] = value
    else:
        document["histograms"][key] = value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", 3),
        ("histograms", {}),
        ("histograms", None),
        ("brightness", [1] * (BINS - 1)),
        ("brightness", [-1] * BINS),
        ("brightness", [0] * BINS),
        ("brightness", [0.5] * BINS),
        ("brightness", [10**30] * BINS),
        ("brightness", ["1"] * BINS),
        ("expected_iou", None),
        ("model", "fedcba9876543210"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path: Path, labels: Labels, key: str, value: Any) -> None:
    write_reference(str(tmp_path), DIGEST, make_histograms(labels))
    file = tmp_path / REFERENCE
    document = json.loads(file.read_text())
    _damage(document, key, value)
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match=REFERENCE):
        read_reference(str(tmp_path), DIGEST, labels)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"format_version": 2}'])
def test_what_is_no_reference_is_refused(tmp_path: Path, labels: Labels, text: str) -> None:
    (tmp_path / REFERENCE).write_text(text)
    with pytest.raises(InputError, match=REFERENCE):
        read_reference(str(tmp_path), DIGEST, labels)


def test_a_value_lies_between_the_ends_of_its_bin(labels: Labels) -> None:
    for feature in features_of(labels):
        scale = feature.scale
        values = np.array([scale.value_at(place) for place in (0, 0.001, 0.29, 0.5, 0.999)])
        assert (np.diff(values) > 0).all()
        for bin, value in zip(scale.find_bins(values).tolist(), values.tolist(), strict=True):
            low, high = scale.value_at(bin / BINS), scale.value_at((bin + 1) / BINS)
            assert low - 1e-9 <= value <= high + 1e-9


def test_values_beyond_the_ends_are_in_the_last_bins() -> None:
    aspect = next(feature for feature in IMAGE_FEATURES if feature.name == "aspect")
    columns = {"width": np.array([1, 1, 90_000]), "height": np.array([90_000, 1, 1])}
    assert aspect.find_bins(columns).tolist() == [0, BINS // 2, BINS - 1]

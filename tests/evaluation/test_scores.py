"""Scores: figures worked out by hand, and sums that lose nothing."""

import json

import numpy as np
import pyarrow as pa
import pytest

from segray.evaluation.scores import Scores
from segray.pixels.labels import IGNORED, Labels

LABELS = Labels.parse(["pet=1", "background=2", "border=3"])
TRUTH = np.array([[0, 0, 0, 1], [1, 1, IGNORED, IGNORED]], dtype=np.uint8)
PREDICTION = np.array([[0, 0, 1, 1], [1, 0, 2, 0]], dtype=np.uint8)


def test_figures_are_those_worked_out_by_hand() -> None:
    scores = Scores.compare(TRUTH, PREDICTION, 3)
    assert scores.confusion.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    figures = scores.to_json(LABELS)
    # In an image as small as that, all of a class is within one pixel of its contour.
    assert figures["classes"] == {
        name: {
            "iou": 2 / 4,
            "dice": pytest.approx(2 / 3),
            "precision": pytest.approx(2 / 3),
            "recall": pytest.approx(2 / 3),
            "boundary_iou": 2 / 4,
            "true_pixels": 3,
            "predicted_pixels": 3,
            "boundary_intersection": 2,
            "boundary_union": 4,
        }
        for name in ("pet", "background")
    } | {
        "border": {
            **dict.fromkeys(("iou", "dice", "precision", "recall", "boundary_iou")),
            **dict.fromkeys(("true_pixels", "predicted_pixels"), 0),
            **dict.fromkeys(("boundary_intersection", "boundary_union"), 0),
        }
    }
    assert figures["pixels"] == 6
    assert figures["accuracy"] == pytest.approx(4 / 6)
    assert figures["mean_iou"] == figures["mean_boundary_iou"] == 0.5
    assert figures["mean_dice"] == pytest.approx(2 / 3)
    assert json.loads(json.dumps(figures, allow_nan=False))["confusion"] == [
        [2, 1, 0],
        [1, 2, 0],
        [0, 0, 0],
    ]


def test_nothing_counted_gives_figures_that_are_null() -> None:
    figures = Scores.zero(3).to_json(LABELS)
    assert figures["pixels"] == 0
    for name in ("accuracy", "mean_iou", "mean_dice", "mean_boundary_iou"):
        assert figures[name] is None
    assert figures["classes"]["pet"]["iou"] is None


def test_counts_go_through_columns_and_add_up() -> None:
    rng = np.random.default_rng(0)
    images = [
        Scores.compare(*rng.integers(0, 5, (2, 20, 30), dtype=np.uint8), classes=5)
        for _ in range(4)
    ]
    large = Scores(2**40 * np.eye(5, dtype=np.int64), *np.full((2, 5), 2**41))
    images.append(large)
    rows = [image.to_columns("own") for image in images]
    columns = [("own_cells", pa.int32()), ("own_counts", pa.int64()), ("own_boundary", pa.int64())]
    schema = pa.schema([(name, pa.list_(kind)) for name, kind in columns])
    first, second = (pa.Table.from_pylist(part, schema) for part in (rows[:1], rows[1:]))
    summed = Scores.from_columns(pa.concat_tables([first, second]), "own", 5)
    added = sum(images, start=Scores.zero(5))
    for name in ("confusion", "boundary_intersection", "boundary_union"):
        expected = sum(getattr(image, name) for image in images)
        assert np.array_equal(getattr(summed, name), expected)
        assert np.array_equal(getattr(added, name), expected)
    assert int(summed.boundary_union[0]) > 2**41

"""The expected IoU beside the true one: ranks, and the picture."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from segray.evaluation.expected import draw_expected, rank_correlation
from segray.evaluation.scores import Scores
from segray.pixels.expected import ExpectedOverlap
from segray.pixels.labels import Labels


def as_figures(expected: list[float], true: list[float | None]) -> pa.Table:
    columns = {"expected_iou": expected, "mean_iou": true}
    return pa.table({name: pa.array(values, pa.float64()) for name, values in columns.items()})


@pytest.mark.parametrize(
    ("expected", "true", "wanted"),
    [
        ([0.1, 0.2, 0.9], [0.5, 0.51, 0.52], 1),
        ([0.1, 0.2, 0.9], [0.6, 0.4, 0.3], -1),
        ([0.1, 0.9, 0.2, 0.5], [0.3, 0.4, None, 0.5], 0.5),
        ([0.1, 0.1, 0.2], [0.3, 0.4, 0.5], 3**0.5 / 2),  # ranks 1.5, 1.5, 3
        ([0.1, 0.2], [0.5, 0.5], None),
        ([0.1], [0.5], None),
        ([], [], None),
    ],
)
def test_the_correlation_is_that_of_ranks(
    expected: list[float], true: list[float | None], wanted: float | None
) -> None:
    assert rank_correlation(as_figures(expected, true)) == (wanted and pytest.approx(wanted))


@pytest.mark.parametrize("classes", [3, 255])
def test_each_image_and_each_class_is_a_point(classes: int) -> None:
    labels = Labels(tuple(f"猫_{i}" for i in range(classes)), tuple(range(classes)))
    union = np.full(classes, 100.0)
    overlap = ExpectedOverlap(np.linspace(10, 90, classes), union, union > 0)
    scores = Scores.zero(classes)
    scores.confusion[np.diag_indices(classes)] = 5
    figures = as_figures([0.25, 0.75, 0.5], [0.3, 0.6, None])
    content = draw_expected(figures, overlap, 1.0, scores, labels)
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (600, 900, 3)
    # Of many points that overlap, the last one is in front.
    for colour in labels.palette if classes == 3 else labels.palette[-1:]:
        assert (pixels == colour).all(axis=-1).sum() > 10
    draw_expected(as_figures([], []), ExpectedOverlap.zero(classes), 1.0, scores, labels)

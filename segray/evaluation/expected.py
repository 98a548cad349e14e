"""The expected IoU (`segray.pixels.expected`) beside the true one: how far to trust it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from segray.evaluation.figure import encode_figure
from segray.evaluation.scores import Scores, number
from segray.pixels.expected import ExpectedOverlap
from segray.pixels.labels import Labels
from segray.pixels.metrics import class_iou

# With more classes, the legend would be longer than the picture.
_NAMED_CLASSES = 24
_INCHES, _DPI = 6.0, 100


def rank_correlation(figures: pa.Table) -> float | None:
    """Return Spearman's rank correlation of the expected and the true mean IoU of images.

    Args:
        figures: the rows of ``per_image.parquet``.

    Returns:
        -1 to 1; None where it is undefined, as for one image.
    """
    known = _both_known(figures)
    ranks = [
        # Equal values share the mean of their ranks.
        pc.rank(known[name], tiebreaker="min").to_numpy()
        + pc.rank(known[name], tiebreaker="max").to_numpy()
        for name in ("expected_iou", "mean_iou")
    ]
    if any(len(np.unique(values)) < 2 for values in ranks):
        return None
    return number(np.corrcoef(ranks)[0, 1])


def draw_expected(
    figures: pa.Table,
    overlap: ExpectedOverlap,
    exponent: float,
    scores: Scores,
    labels: Labels,
) -> bytes:
    """Draw the expected and the true IoU of each image, and of each class over all images.

    Args:
        figures: the rows of ``per_image.parquet``.
        overlap: the expected overlap in all images.
        exponent: see `segray.model.bundle.Bundle.iou_exponent`.
        scores: the counts at the original resolution.
        labels: the classes.

    Returns:
        The content of a PNG file.
    """
    figure = Figure(figsize=(_INCHES + 3, _INCHES), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", zorder=0)
    known = _both_known(figures)
    axes.scatter(
        known["expected_iou"].to_numpy(),
        known["mean_iou"].to_numpy(),
        s=9,
        color="0.4",
        linewidths=0,
        label="an image",
    )
    named = len(labels) <= _NAMED_CLASSES
    expected, true = overlap.class_iou(exponent), class_iou(scores.confusion)
    for name, colour, x, y in zip(labels.names, labels.palette, expected, true, strict=True):
        axes.scatter(
            x,
            y,
            s=60,
            marker="D",
            edgecolors="black",
            color=[channel / 255 for channel in colour],
            label=f"{name}, all images" if named else None,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="expected IoU", ylabel="true IoU", aspect="equal")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return encode_figure(figure, _DPI)


def _both_known(figures: pa.Table) -> pa.Table:
    """The images with a labelled pixel."""
    return figures.filter(pc.is_valid(figures["mean_iou"]))

"""Training curves: the metrics of each epoch as a picture."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segray.evaluation.figure import encode_figure
from segray.pixels.labels import Labels

_MAX_LINES = 10  # more colours are hard to distinguish


def draw_curves(history: Sequence[dict[str, Any]], labels: Labels) -> bytes:
    """Draw the loss and the IoU over the epochs.

    Args:
        history: the records of metrics.jsonl, one per epoch.
        labels: the classes, drawn in the colours of their masks.

    Returns:
        The content of a PNG file.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    marker = "o" if len(epochs) == 1 else None  # a line needs two points
    losses.plot(epochs, _column(history, "train_loss"), label="training", marker=marker)
    losses.plot(epochs, _column(history, "loss"), label="validation", marker=marker)
    losses.set(title="cross-entropy", xlabel="epoch", ylim=(0, None))
    for name, colour in list(zip(labels.names, labels.palette, strict=True))[:_MAX_LINES]:
        shade = tuple(channel / 255 for channel in colour)
        scores.plot(epochs, _column(history, f"iou_{name}"), label=name, color=shade, marker=marker)
    means = _column(history, "mean_iou")
    scores.plot(epochs, means, label="mean", color="black", linewidth=2, marker=marker)
    scores.set(title="validation IoU", xlabel="epoch", ylim=(0, 1))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return encode_figure(figure)


def _column(history: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [float("nan") if record[name] is None else record[name] for record in history]

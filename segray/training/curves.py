"""Curves: the metrics of each epoch as a picture."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure


def draw_curves(history: Sequence[dict[str, Any]], classes: Sequence[str]) -> bytes:
    """Draw loss and IoU over the epochs.

    Args:
        history: records of metrics.jsonl, one per epoch.
        classes: the names of the classes.

    Returns:
        A PNG file's content.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    marker = "o" if len(epochs) == 1 else None  # a line through one point shows nothing
    losses.plot(epochs, [r["train_loss"] for r in history], label="training", marker=marker)
    losses.plot(epochs, [r["loss"] for r in history], label="validation", marker=marker)
    losses.set(title="cross-entropy", xlabel="epoch", ylim=(0, None))
    for name in classes[:10]:  # more lines than that cannot be told apart
        ious = [float("nan") if r[f"iou_{name}"] is None else r[f"iou_{name}"] for r in history]
        scores.plot(epochs, ious, label=name, alpha=0.6, linewidth=1, marker=marker)
    means = [float("nan") if r["mean_iou"] is None else r["mean_iou"] for r in history]
    scores.plot(epochs, means, label="mean", color="black", linewidth=2, marker=marker)
    scores.set(title="validation IoU", xlabel="epoch", ylim=(0, 1))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()

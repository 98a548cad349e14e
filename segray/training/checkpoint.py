"""Checkpoints: all that a training run needs to go on from the end of an epoch."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

_WEIGHTS = "last.weights.h5"
_BEST = "best.weights.h5"
_OPTIMIZER = "optimizer.npz"
_PROGRESS = "progress.json"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        history: one record per finished epoch, as in metrics.jsonl.
        best_epoch: the epoch (from 1) with the highest mean IoU; 0 before the first.
        best_weights: the content of that epoch's weights file.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: bytes = b""

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)


def save_checkpoint(
    folder: Path, model: keras.Model, optimizer: keras.Optimizer, progress: Progress
) -> None:
    """Write model, optimizer and progress into an empty folder."""
    model.save_weights(folder / _WEIGHTS)
    values = [np.asarray(variable) for variable in optimizer.variables]
    np.savez(folder / _OPTIMIZER, *values)
    (folder / _BEST).write_bytes(progress.best_weights)
    document = asdict(progress)
    del document["best_weights"]
    (folder / _PROGRESS).write_text(json.dumps(document))


def load_checkpoint(folder: Path, model: keras.Model, optimizer: keras.Optimizer) -> Progress:
    """Bring model and optimizer to where `save_checkpoint` left them."""
    model.load_weights(folder / _WEIGHTS)
    with np.load(folder / _OPTIMIZER) as values:
        for variable, name in zip(optimizer.variables, values.files, strict=True):
            variable.assign(values[name])
    document = json.loads((folder / _PROGRESS).read_text())
    return Progress(**document, best_weights=(folder / _BEST).read_bytes())

"""The work that the driver of a training run hands to its workers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from segray.model.start import StartingModel
from segray.nodes import SharedFiles
from segray.training.config import TrainConfig
from segray.training.data.examples import Examples


@dataclass(frozen=True)
class Assignment:
    """The work that the driver hands to each worker.

    Attributes:
        config: the configuration of the run.
        output: the absolute URI of the run's folder.
        shared: local files that must be visible to each worker.
        train: the training set, brought to `TrainConfig.training_frame`.
        validation: the validation set, brought to `TrainConfig.frame`.
        class_weights: float32 [C], the weights of the classes in the loss.
        encoder_weights: a reference to the content of the weights file, or None.
        start: a reference to the model that the run goes on from, or None.
        record: JSON-ready facts for the bundle.
    """

    config: TrainConfig
    output: str
    shared: SharedFiles
    train: Examples
    validation: Examples
    class_weights: npt.NDArray[np.float32]
    encoder_weights: "ray.ObjectRef[bytes] | None"
    record: dict[str, Any]
    start: "ray.ObjectRef[StartingModel] | None" = None

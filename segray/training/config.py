"""The configuration of a training run: the flags of jobs/train.py, with their defaults."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from segray.errors import InputError
from segray.pixels.labels import Labels


@dataclass(frozen=True)
class TrainConfig:
    """Train a U-Net on images and masks, and write it as a model bundle.

    With no --images, a small sample data set is drawn once into output/sample and learned, with
    settings to match: a smaller image size, fewer epochs, no weights to fetch.
    A URI is a local path or s3://bucket/key; S3 is configured by the standard AWS environment.
    """

    images: str | None = None
    """URI of the folder of images; default: a sample that segray draws."""
    masks: str | None = None
    """URI of the folder of masks; a mask and its image share a name up to the suffix."""
    output: str = "output/train"
    """URI of the folder that receives model, checkpoints, metrics and pictures."""
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = (
        "pet=1",
        "background=2",
        "border=3",
    )
    """The classes, each with the value that stands for it in the masks."""
    ignore_values: tuple[int, ...] = ()
    """Mask values whose pixels count in neither loss nor metrics."""

    image_size: int = 128
    """Side of the square that the network sees, in pixels; a multiple of 32."""
    epochs: int = 20
    """How often the training part is gone through."""
    batch_size: int = 16
    """Images in a step, over all workers together."""
    learning_rate: float = 1e-3
    """Step size of the optimiser, Adam."""
    seed: int = 0
    """Of the split, the order of the images, the flips and the first weights."""
    encoder_weights: Annotated[str, tyro.conf.arg(metavar="imagenet|none|FILE")] = "imagenet"
    """What the encoder starts from: ImageNet (fetched once, then kept), none, or the URI of a
    Keras weights file for MobileNetV2 without its top. Given weights stay as they are; an encoder
    that starts from none is trained."""

    validation_fraction: float = 0.1
    """Share of the pairs kept for validation, above 0 and below 1."""
    validation_images: str | None = None
    """URI of the images of a validation set of its own, instead of a fraction."""
    validation_masks: str | None = None
    """URI of its masks."""

    workers: int = 1
    """How many processes train together, each with its share of every batch."""
    use_gpu: bool = False
    """Give each worker a GPU."""

    labels: tyro.conf.Suppress[Labels] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", Labels.parse(self.classes, self.ignore_values))
        for name in ("images", "masks", "output", "validation_images", "validation_masks"):
            _require(getattr(self, name) != "", f"--{name.replace('_', '-')} is empty: give a URI")
        _require((self.images is None) == (self.masks is None), "--images and --masks go together")
        _require(
            (self.validation_images is None) == (self.validation_masks is None),
            "--validation-images and --validation-masks go together",
        )
        _require(
            self.images is not None or self.validation_images is None,
            "--validation-images needs --images and --masks to train on",
        )
        for name in ("epochs", "batch_size", "workers"):
            _require(getattr(self, name) >= 1, f"--{name.replace('_', '-')} must be at least 1")
        _require(0 < self.learning_rate < math.inf, "--learning-rate must be a number above 0")
        _require(0 <= self.seed < 2**32, "--seed must be in 0 to 4294967295")
        _require(
            0 < self.validation_fraction < 1, "--validation-fraction must be above 0 and below 1"
        )
        _require(
            self.batch_size % self.workers == 0,
            f"--batch-size {self.batch_size} cannot be shared equally by --workers "
            f"{self.workers}: take a multiple, such as "
            f"{self.workers * max(1, round(self.batch_size / self.workers))}",
        )

    def to_json(self) -> dict[str, Any]:
        """The settings, JSON-ready, as they go into the bundle."""
        return {name: value for name, value in vars(self).items() if name != "labels"}


#: What learns the sample data set in about a minute on two cores, with no weights to fetch.
SAMPLE_SETTINGS = {
    "image_size": 96,
    "epochs": 7,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "encoder_weights": "none",
}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)

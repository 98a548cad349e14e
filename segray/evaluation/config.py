"""The configuration of an evaluation: the flags of jobs/evaluate.py, with their defaults."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from segray.errors import InputError
from segray.model.predictor import Engine
from segray.pixels.orientation import MaskOrientation
from segray.pixels.wide import ValueRange, check_range
from segray.storage.access import ORDINARY, S3Access
from segray.storage.manifest import SPLITS


@dataclass(frozen=True)
class EvaluateConfig:
    """Score a model on labelled images, and write figures, tables and pictures.

    With no --images and no --pairs it scores the labelled sample images, which jobs/train.py
    learns from when it is given no data. A URI is a local path or s3://bucket/key; S3 is configured
    by the standard AWS environment.
    """

    model: str = "output/train/model"
    """URI of the model bundle, the folder model/ in the output of jobs/train.py."""
    images: str | None = None
    """URI of the folder of images; default: sample images."""
    masks: str | None = None
    """URI of the folder of masks; a mask and its image share a name up to the suffix."""
    image_suffix: str = ""
    """What the names of images end with beyond those of their masks, such as _leftImg8bit."""
    mask_suffix: str = ""
    """What the names of masks end with beyond those of their images, such as _mask. With it,
    --images and --masks may be one folder."""
    pairs: str | None = None
    """URI of a CSV or Parquet file with the columns image and mask, and maybe split, instead of
    --images and --masks."""
    split: str | None = None
    """Which part of --pairs to score: train, validation or test; default: test, or all pairs where
    they are of one split."""
    output: str = "output/evaluate"
    """URI of the folder that receives metrics.json, per_image.parquet and pictures."""

    mask_orientation: MaskOrientation = "auto"
    """What masks of images with an EXIF orientation were drawn on: the pixels as they are stored,
    so that masks are turned with their images, or the upright picture; auto: what the shapes of the
    pairs say."""
    value_range: Annotated[ValueRange | None, tyro.conf.arg(metavar="LOW HIGH")] = None
    """The values, 0 to 65535, that are black and white in images of more than 8 bits a channel;
    default: as the model has learned them."""
    max_error_rate: float = 0.05
    """Share of unreadable or unpaired files, 0 to 1, above which the job exits with status 1."""

    engine: Engine = "auto"
    """What runs the network; auto: TensorFlow on GPUs, ONNX Runtime on CPUs."""
    workers: int | None = None
    """How many predictors run at once; default: one for each CPU that the cluster has now, or each
    GPU with --use-gpu; on a cluster that starts with none, as many as it grows to."""
    use_gpu: bool = False
    """Give each predictor a GPU."""
    batch_size: int = 32
    """Images that a predictor takes at a time."""

    lock: bool = True
    """Keep other runs away from an output in S3 while this one is at work. --no-lock leaves that to
    you, for stores that take no conditional writes."""

    s3: Annotated[S3Access, tyro.conf.arg(name="")] = ORDINARY

    def __post_init__(self) -> None:
        for name in ("model", "images", "masks", "pairs", "split", "output"):
            _require(getattr(self, name) != "", f"--{name} is empty: give a value")
        _require((self.images is None) == (self.masks is None), "--images and --masks go together")
        _require(
            self.images is None or self.pairs is None,
            "--pairs names images and masks itself: leave out --images and --masks",
        )
        _require(
            self.images is not None or not (self.image_suffix or self.mask_suffix),
            "--image-suffix and --mask-suffix are of files in --images and --masks: give these",
        )
        _require(
            self.split is None or self.pairs is not None,
            "--split names a part of --pairs: give --pairs too, or leave out --split",
        )
        _require(
            self.split is None or self.split.lower() in SPLITS,
            f"there is no --split {self.split}: take one of train, validation, test",
        )
        for name in ("workers", "batch_size"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"--{name.replace('_', '-')} must be at least 1")
        _require(0 <= self.max_error_rate <= 1, "--max-error-rate must be in 0 to 1")
        check_range(self.value_range)

    def to_json(self) -> dict[str, Any]:
        """The settings, JSON-ready, as they go into metrics.json; not how S3 is asked."""
        return {name: value for name, value in vars(self).items() if name != "s3"}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)

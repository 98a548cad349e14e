"""The configuration of an evaluation: the flags of jobs/evaluate.py, with their defaults."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from segray.data.pairs_table import SPLITS
from segray.errors import require
from segray.model.predictor import Engine
from segray.pixels.canvas import OVERLAP, check_overlap
from segray.pixels.orientation import MaskOrientation
from segray.pixels.wide import ValueRange, check_range


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The model and the labelled images."""

    model: str = "output/train/model"
    """URI of the model bundle: the folder model/ in the output of jobs/train.py."""
    images: str | None = None
    """URI of the folder of images; default: a sample that segray draws."""
    masks: str | None = None
    """URI of the folder of ground-truth masks; a mask and its image share a name up to the
    suffix."""
    image_suffix: str = ""
    """Ending of image names that the names of their masks lack, such as _leftImg8bit."""
    mask_suffix: str = ""
    """Ending of mask names that the names of their images lack, such as _mask. With it, --images
    and --masks may be the same folder."""
    pairs: str | None = None
    """Instead of --images and --masks: URI of a CSV or Parquet file with the columns image, mask
    and, optionally, split (train, validation or test)."""
    split: str | None = None
    """Split of --pairs to score: train, validation or test. Default: test, or all pairs if there is
    only one split or no column split."""
    mask_orientation: MaskOrientation = "auto"
    """How masks of images with an EXIF orientation were drawn. stored: on the pixels as stored in
    the file; such masks are rotated with their images. upright: on the rotated picture. auto:
    inferred from pairs whose width and height differ."""
    value_range: Annotated[ValueRange | None, tyro.conf.arg(metavar="LOW HIGH")] = None
    """Pixel values, 0 to 65535, of black and white in images of more than 8 bits per channel.
    Default: the range in the model bundle."""
    overlap: float = OVERLAP
    """Minimum overlap of neighbouring windows, as a share of a window's side, 0 to 0.9; for models
    trained with --fit tile."""
    test_time_flip: bool = False
    """Average the prediction for each image with that for its mirror image: better masks, for twice
    the time."""


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The results."""

    output: str = "output/evaluate"
    """URI of the folder that receives metrics.json, per_image.parquet and pictures."""
    max_error_rate: float = 0.05
    """Share of unreadable or unpaired files, 0 to 1, above which the job exits with status 1."""
    lock: bool = True
    """Lock an output in S3 against concurrent runs. --no-lock is for stores without conditional
    writes; then no two runs may share an output."""


@dataclass(frozen=True, kw_only=True)
class ClusterFlags:
    """The engine, the workers and their devices."""

    engine: Engine = "auto"
    """Inference engine. auto: onnx, which is ONNX Runtime."""
    workers: int | None = None
    """Number of concurrent predictors. Default: one per CPU that the cluster has now, or one per
    GPU with --use-gpu; on a cluster that starts with none, as many as it grows to. 0: score in the
    job's own process, without Ray; this is the default without a cluster for up to 1,000
    images, unless the model takes windows or with --use-gpu."""
    use_gpu: bool = False
    """Give each predictor a GPU."""
    batch_size: int = 32
    """Images per batch; with --fit tile, windows of them."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(ClusterFlags, RunFlags, DataFlags):
    """Score a model on labelled images, and write metrics, tables and pictures.

    With neither --images nor --pairs it scores the labelled sample images, on which jobs/train.py
    trains if it is given no data. A URI is a local path or s3://bucket/key; S3 is configured by the
    standard AWS environment.
    """

    def __post_init__(self) -> None:
        for name in ("model", "images", "masks", "pairs", "split", "output"):
            require(getattr(self, name) != "", f"--{name} is empty: give a value")
        require((self.images is None) == (self.masks is None), "--images and --masks go together")
        require(
            self.images is None or self.pairs is None,
            "--pairs names images and masks itself: leave out --images and --masks",
        )
        require(
            self.images is not None or not (self.image_suffix or self.mask_suffix),
            "--image-suffix and --mask-suffix are of files in --images and --masks: give these",
        )
        require(
            self.split is None or self.pairs is not None,
            "--split names a part of --pairs: give --pairs too, or leave out --split",
        )
        require(
            self.split is None or self.split.lower() in SPLITS,
            f"there is no --split {self.split}: take one of train, validation, test",
        )
        require(self.batch_size >= 1, "--batch-size must be at least 1")
        require(self.workers is None or self.workers >= 0, "--workers must not be below 0")
        require(0 <= self.max_error_rate <= 1, "--max-error-rate must be in 0 to 1")
        check_range(self.value_range)
        check_overlap(self.overlap)

    def to_json(self) -> dict[str, Any]:
        """Return the settings, JSON-ready, as metrics.json records them."""
        return dict(vars(self))

"""The configuration of a training run: the flags of jobs/train.py, with their defaults."""

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import tyro

from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.pixels.orientation import MaskOrientation
from segray.pixels.wide import ValueRange, check_range
from segray.storage.access import ORDINARY, S3Access
from segray.training.augmentation import Augmentation
from segray.training.schedule import Schedule
from segray.training.workers import WORKERS_FLAG, Workers, name_workers

Recipe = Literal["segray", "tutorial"]
Loss = Literal["ce", "ce+dice", "ce+lovasz", "focal"]
Optimizer = Literal["muon", "adamw"]
Precision = Literal["auto", "float32", "mixed_bfloat16"]
Cache = Literal["auto", "memory", "none"]

# Of fewer images a layer makes too little of a core.
_IMAGES_OF_A_PART = 4
#: Into how many parts images are divided at most (`segray.training.parts`): each takes a second
#: more until the first step.
MOST_PARTS = 8


@dataclass(frozen=True)
class TrainConfig:
    """Train a U-Net on images and masks, and write it as a model bundle.

    With no --images and no --pairs, a small sample data set is drawn once into output/sample and
    learned, with settings to match: a smaller image size, fewer epochs, no weights to fetch.
    A URI is a local path or s3://bucket/key; S3 is configured by the standard AWS environment.
    """

    images: str | None = None
    """URI of the folder of images; default: a sample that segray draws."""
    masks: str | None = None
    """URI of the folder of masks; a mask and its image share a name up to the suffix."""
    image_suffix: str = ""
    """What the names of images end with beyond those of their masks, such as _leftImg8bit."""
    mask_suffix: str = ""
    """What the names of masks end with beyond those of their images, such as _mask. With it,
    --images and --masks may be one folder."""
    pairs: str | None = None
    """URI of a CSV or Parquet file with the columns image and mask, and maybe split (train,
    validation or test), instead of --images and --masks."""
    output: str = "output/train"
    """URI of the folder that receives model, checkpoints, metrics and pictures."""
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = (
        "pet=1",
        "background=2",
        "border=3",
    )
    """The classes, each with the value or the colour (road=#804080) of its pixels in the masks."""
    ignore_values: Annotated[tuple[str, ...], tyro.conf.arg(metavar="VALUE ...")] = ()
    """Mask values, or colours in quotes ('#000000'), whose pixels count in neither loss nor
    metrics."""
    ignore_others: bool = False
    """Ignore all mask values that --classes does not name, as those of smoothed edges."""
    mask_orientation: MaskOrientation = "auto"
    """What masks of images with an EXIF orientation were drawn on: the pixels as they are stored,
    so that masks are turned with their images, or the upright picture; auto: what the shapes of the
    pairs say."""
    value_range: Annotated[ValueRange | None, tyro.conf.arg(metavar="LOW HIGH")] = None
    """The values, 0 to 65535, that are black and white in images of more than 8 bits a channel;
    default: 0 to what 8 or more bits hold that hold all values of a sample of the images. The model
    keeps it."""
    max_error_rate: float = 0.05
    """Share of unreadable or unpaired files, 0 to 1, above which the job stops."""

    image_size: int = 128
    """Side of the square that the network sees, in pixels; a multiple of 32."""
    epochs: int = 20
    """How often the training part is gone through."""
    batch_size: int = 8
    """Images in a step, over all workers together. An epoch takes full batches alone: which images
    are left over is drawn anew for each. Fewer than a batch are taken several times."""
    seed: int = 0
    """Of the split, the order of the images, their augmentation and the first weights. On
    equally many CPUs the same seed gives the same model, bit for bit."""
    recipe: Recipe = "segray"
    """tutorial: the settings of TensorFlow's "Image segmentation" tutorial as it stands, for
    comparison; flags given beside it still count."""

    encoder_weights: Annotated[str, tyro.conf.arg(metavar="imagenet|none|FILE")] = "imagenet"
    """What the encoder starts from: ImageNet (fetched once, then kept), none, or the URI of a
    Keras weights file for MobileNetV2 without its top."""
    input_range: Annotated[tuple[float, float], tyro.conf.arg(metavar="LOW HIGH")] = (-1.0, 1.0)
    """What pixel values are scaled to inside the network; ImageNet's weights expect -1 to 1."""
    even_upsampling: bool = True
    """Even out what the decoder's transposed convolutions make: their three by three weights at
    stride two leave a checkerboard, which costs accuracy."""
    frozen_epochs: int = 2
    """For so many epochs an encoder with given weights stays as it is; its batch-normalisation
    statistics always do. An encoder that starts from none is trained from the first epoch."""

    optimizer: Optimizer = "muon"
    """Of the kernels inside of the decoder: Muon learns more of them in few steps. All else is left
    to AdamW."""
    learning_rate: float = 1e-3
    """Peak step size of the optimizers for the decoder."""
    encoder_learning_rate: float = 3e-4
    """Peak step size for an encoder with given weights; 0 keeps it frozen."""
    schedule: Schedule = "cosine"
    """How the step size goes on after its peak."""
    warmup: float = 0.05
    """Share of the run over which the step size is raised."""
    weight_decay: float = 0.01
    """Of the weights that are no biases and no normalisation, decoupled from the gradient."""
    batch_norm_momentum: float = 0.9
    """Of the running statistics that the decoder's batch normalisation keeps."""

    loss: Loss = "ce+lovasz"
    """What is made small: cross-entropy, alone or with the soft Dice loss or the Lovász loss, which
    stand for the overlap of truth and prediction; or focal loss."""
    overlap_weight: float = 0.5
    """Of the Dice or Lovász loss beside the cross-entropy."""
    class_weights: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="none|balanced|NAME=WEIGHT ...")
    ] = ("none",)
    """Of the classes in cross-entropy and focal loss; balanced: by the inverse of their pixels;
    a class that is not named has the weight 1."""
    label_smoothing: float = 0.0
    """Share of the target that all classes get equally, 0 to 1."""

    flip: bool = True
    """Mirror half of the examples left to right, each time anew."""
    zoom: Annotated[tuple[float, float], tyro.conf.arg(metavar="LEAST MOST")] = (0.7, 1.1)
    """Share of the image's side that is cut out at random; 1 1 switches it off."""
    detail: float = 2.0
    """How many times larger than --image-size the examples are kept that are cut out of by --zoom,
    so that what is cut out stays sharp."""
    stretch: float = 0.1
    """Greatest random change of the aspect ratio; 0 switches it off."""
    rotation: float = 10.0
    """Greatest random rotation, in degrees; 0 switches it off."""
    colour: float = 0.2
    """Greatest relative change of brightness, contrast and saturation; 0 switches it off."""

    calibrate: bool = True
    """Calibrate the finished model's confidence on the validation part, by temperature scaling;
    masks do not change."""
    patience: int = 0
    """Stop after so many epochs without a better mean IoU; 0: never before --epochs."""
    validation_fraction: float = 0.1
    """Share of the pairs kept for validation, above 0 and below 1."""
    validation_images: str | None = None
    """URI of the images of a validation set of its own, instead of a fraction."""
    validation_masks: str | None = None
    """URI of its masks."""

    workers: Annotated[Workers, WORKERS_FLAG] = 1
    """How many processes train together, each with its share of every batch. 1..4: as many of
    them as there is room for; a run goes on without those that are lost, and takes in more at the
    end of an epoch. 0: none, training runs in the job's own process, as in a notebook."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    precision: Precision = "auto"
    """auto: mixed_bfloat16 on GPUs that have it in hardware, float32 otherwise."""
    cache: Cache = "auto"
    """Where decoded examples are kept: in Ray's memory, or nowhere (decoded anew each epoch);
    auto: in memory if they fit."""
    max_restarts: int = 3
    """How often in a row, without an epoch finished in between, a run whose worker died goes on by
    itself from the last finished epoch."""
    mlflow: str | None = None
    """URL of an MLflow tracking server that gets the numbers of each epoch, too; name and password
    come from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""
    stall_timeout: float = 600.0
    """Seconds that workers wait for one that does not come, before they are all restarted."""

    lock: bool = True
    """Keep other runs away from an output in S3 while this one is at work. --no-lock leaves that to
    you, for stores that take no conditional writes."""

    s3: Annotated[S3Access, tyro.conf.arg(name="")] = ORDINARY

    def __post_init__(self) -> None:
        self._check_data()
        for name in ("epochs", "batch_size"):
            _require(getattr(self, name) >= 1, f"{_flag(name)} must be at least 1")
        least, most = self.least_workers, self.most_workers
        _require(least >= 0, "--workers must not be below 0")
        _require(
            least == most or 1 <= least < most,
            f"--workers {name_workers(self.workers)}: a range goes from at least 1 up, as in 1..4",
        )
        for name in ("frozen_epochs", "patience", "max_restarts"):
            _require(getattr(self, name) >= 0, f"{_flag(name)} must not be below 0")
        for name in ("learning_rate", "stall_timeout"):
            _require(0 < getattr(self, name) < math.inf, f"{_flag(name)} must be a number above 0")
        for name in ("encoder_learning_rate", "weight_decay", "overlap_weight", "rotation"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"{_flag(name)} must be a number, 0 or above")
        for name in ("warmup", "label_smoothing", "stretch", "colour", "batch_norm_momentum"):
            _require(0 <= getattr(self, name) < 1, f"{_flag(name)} must be in 0 to 1, 1 excluded")
        _require(0 <= self.max_error_rate <= 1, "--max-error-rate must be in 0 to 1")
        _require(1 <= self.detail <= 4, "--detail must be in 1 to 4")
        _require(0 < self.zoom[0] <= self.zoom[1] <= 4, "--zoom takes two shares, as in 0.7 1.1")
        _require(
            -math.inf < self.input_range[0] < self.input_range[1] < math.inf,
            "--input-range takes two numbers, as in -1 1",
        )
        check_range(self.value_range)
        _require(0 <= self.seed < 2**32, "--seed must be in 0 to 4294967295")
        self.weigh_classes(np.ones(len(self.labels), dtype=np.int64))

    @property
    def least_workers(self) -> int:
        """With how many workers a run begins and goes on at least."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """How many workers a run has at most."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def workers_use_gpu(self) -> bool:
        """Whether GPUs are asked for; without workers, one is the job's own to look for."""
        return self.use_gpu and self.most_workers > 0

    def check_shares(self) -> None:
        """Refuse a batch that is too small for the workers; a recipe may set one and flags the
        other.

        Raises:
            InputError: a worker would have no image of a batch.
        """
        _require(
            self.batch_size >= self.most_workers,
            f"--batch-size {self.batch_size} has no image for some of --workers "
            f"{name_workers(self.workers)}: give at least --batch-size {self.most_workers}, or "
            "fewer workers",
        )

    def _check_data(self) -> None:
        names = ("images", "masks", "pairs", "output", "validation_images", "validation_masks")
        for name in names:
            _require(getattr(self, name) != "", f"{_flag(name)} is empty: give a URI")
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
            (self.validation_images is None) == (self.validation_masks is None),
            "--validation-images and --validation-masks go together",
        )
        _require(
            self.images is not None or self.validation_images is None,
            "--validation-images needs --images and --masks to train on",
        )
        _require(
            0 < self.validation_fraction < 1, "--validation-fraction must be above 0 and below 1"
        )

    @cached_property
    def labels(self) -> Labels:
        """What --classes, --ignore-values and --ignore-others say."""
        return Labels.parse(self.classes, self.ignore_values, self.ignore_others)

    def count_parts(self, cores: int, workers: int) -> int:
        """Into how many parts each worker's share of a batch is divided, to go through the network
        side by side on cores of their own (`segray.training.parts`).

        Args:
            cores: that a worker computes on; 0 if that is TensorFlow's to say.
            workers: how many there are.
        """
        share = self.batch_size // workers
        return max(1, min(cores, share // _IMAGES_OF_A_PART, MOST_PARTS))

    @property
    def training_size(self) -> int:
        """The side of the squares that training examples are kept as, in pixels."""
        return round(self.image_size * self.detail) if self.zoom != (1.0, 1.0) else self.image_size

    @property
    def augmentation(self) -> Augmentation:
        """What the flags of augmentation say."""
        return Augmentation(self.flip, self.zoom, self.stretch, self.rotation, self.colour)

    def weigh_classes(self, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The weight of each class, float32 [C].

        Args:
            pixels: int64 [C], how many pixels of each class the training part has.

        Raises:
            InputError: --class-weights names no class of --classes, or no weight.
        """
        weights = np.ones(len(self.labels), dtype=np.float32)
        if self.class_weights == ("none",):
            return weights
        if self.class_weights == ("balanced",):
            present = max(1, np.count_nonzero(pixels))
            # A class without pixels has no loss to weigh.
            return (pixels.sum() / (present * np.maximum(pixels, 1))).astype(np.float32)
        named = set()
        for word in self.class_weights:
            name, _, text = word.partition("=")
            _require(
                name not in named,
                f"--class-weights names {name} twice: give each class one weight",
            )
            named.add(name)
            try:
                index, weight = self.labels.names.index(name), float(text)
            except ValueError as error:
                raise InputError(
                    f"--class-weights: {word!r} is no NAME=WEIGHT of the classes "
                    f"{' '.join(self.labels.names)}, and not none or balanced alone"
                ) from error
            # As float32, in which the loss is computed: 1e39 is infinite there.
            with np.errstate(over="ignore"):
                weights[index] = weight
            _require(
                0 <= weights[index] < math.inf,
                f"--class-weights: {word!r} must be in 0 to 3e38",
            )
        _require(bool(weights.any()), "--class-weights: one must be above 0")
        return weights

    def to_json(self) -> dict[str, Any]:
        """The settings, JSON-ready, as they go into the bundle; not how S3 is asked."""
        names = [item.name for item in fields(self) if item.name != "s3"]
        return {name: getattr(self, name) for name in names}


#: What learns the sample data set in about a minute on two cores, with no weights to fetch.
SAMPLE_SETTINGS: dict[str, Any] = {
    "image_size": 96,
    "epochs": 7,
    "learning_rate": 2e-3,
    "encoder_weights": "none",
}

#: What `--recipe` changes.
RECIPES: dict[Recipe, dict[str, Any]] = {
    "segray": {},
    # https://www.tensorflow.org/tutorials/images/segmentation, as it stands: pixels scaled to
    # [0, 1], a frozen encoder, Adam at a constant rate, flips, Keras' defaults.
    "tutorial": {
        "batch_size": 64,
        "input_range": (0.0, 1.0),
        "even_upsampling": False,
        "optimizer": "adamw",
        "encoder_learning_rate": 0.0,
        "schedule": "constant",
        "warmup": 0.0,
        "weight_decay": 0.0,
        "batch_norm_momentum": 0.99,
        "loss": "ce",
        "zoom": (1.0, 1.0),
        "detail": 1.0,
        "stretch": 0.0,
        "rotation": 0.0,
        "colour": 0.0,
        "calibrate": False,
    },
}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)

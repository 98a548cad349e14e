"""The configuration of a training run: the flags of jobs/train.py, with their defaults."""

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import tyro

from segray.errors import InputError, require
from segray.model.architecture import Architecture, Decoder, ImageSize, join_size, split_size
from segray.model.encoders import ENCODERS, EncoderName, Range
from segray.pixels.framing import MAX_SCALE, Fit, Frame
from segray.pixels.labels import Labels
from segray.pixels.orientation import MaskOrientation
from segray.pixels.wide import ValueRange, check_range
from segray.training.control.workers import WORKERS_FLAG, Workers, name_workers
from segray.training.data.augmentation import Augmentation
from segray.training.step.schedule import Schedule

Recipe = Literal["segray", "tutorial"]
Loss = Literal["ce", "ce+dice", "ce+lovasz", "focal"]
Optimizer = Literal["muon", "adamw"]
Precision = Literal["auto", "float32", "mixed_bfloat16"]
Cache = Literal["auto", "memory", "none"]

# The fewest images in a part: smaller parts leave a core under-used.
_IMAGES_OF_A_PART = 4
#: The greatest number of parts that a worker's share of a batch is divided into
#: (`segray.training.step.parts`); each part delays the first step by a second.
MOST_PARTS = 8
_MAX_BLUR = 8  # pixels


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The training set and the validation set."""

    images: str | None = None
    """URI of the folder of training images; default: a sample that segray draws."""
    masks: str | None = None
    """URI of the folder of ground-truth masks; a mask and its image share a name up to the
    suffix."""
    image_suffix: str = ""
    """Ending of image names that the names of their masks lack, such as _leftImg8bit."""
    mask_suffix: str = ""
    """Ending of mask names that the names of their images lack, such as _mask. With it, --images
    and --masks may be the same folder."""
    pairs: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="URI ...")] = None
    """Instead of --images and --masks: URIs of CSV or Parquet files with the columns image, mask
    and, optionally, split (train, validation or test). If several list an image, the last mask
    counts."""
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = (
        "pet=1",
        "background=2",
        "border=3",
    )
    """Names of the classes, each with the value or the colour (road=#804080) of its pixels in the
    masks."""
    ignore_values: Annotated[tuple[str, ...], tyro.conf.arg(metavar="VALUE ...")] = ()
    """Ignore values (ignore_index): mask values, or colours in quotes ('#000000'), whose pixels are
    left out of the loss and the metrics."""
    ignore_others: bool = False
    """Ignore every mask value that --classes does not name, such as those of smoothed edges."""
    mask_orientation: MaskOrientation = "auto"
    """How masks of images with an EXIF orientation were drawn. stored: on the pixels as stored in
    the file; such masks are rotated with their images. upright: on the rotated picture. auto:
    inferred from pairs whose width and height differ."""
    value_range: Annotated[ValueRange | None, tyro.conf.arg(metavar="LOW HIGH")] = None
    """Pixel values, 0 to 65535, that are black and white in images of more than 8 bits per channel.
    Default: 0 and the maximum of the smallest bit depth that holds the values of a sample of the
    images, such as 4095 for 12 bits. The model bundle keeps the range."""
    validation_fraction: float = 0.1
    """Share of the pairs that is held out for validation, above 0 and below 1."""
    validation_images: str | None = None
    """URI of the images of a separate validation set, instead of --validation-fraction."""
    validation_masks: str | None = None
    """URI of the masks of that validation set."""
    max_error_rate: float = 0.05
    """Share of unreadable or unpaired files, 0 to 1, above which the job fails."""


@dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """The network and its initial weights."""

    image_size: Annotated[ImageSize, tyro.conf.arg(metavar="SIDE|HEIGHT WIDTH")] = 128
    """Input resolution of the network, in pixels: one number for a square, or height and width;
    multiples of 32."""
    fit: Fit = "squash"
    """How images are brought to that resolution. squash: each side is scaled to that of the
    network, whatever the proportions. letterbox: both sides are scaled alike, so that the image
    just fits, and bars of grey fill the rest; they count neither in the loss nor in the metrics,
    and masks do not have them. tile: images keep their resolution, for large images with small
    objects; the network is trained on random crops of --image-size, and segments in overlapping
    windows of that size, whose logits are blended."""
    scale: float = 1.0
    """With --fit tile: the factor by which images are scaled first, such as 0.5."""
    encoder: EncoderName = "MobileNetV2"
    """Encoder of the network, by its name in keras.applications; a number behind a MobileNetV2 is
    its width (alpha). docs/training.md compares them."""
    decoder: Decoder = "slim"
    """Decoder of the network. tutorial: that of TensorFlow's tutorial. slim: the same with half the
    filters."""
    encoder_weights: Annotated[str, tyro.conf.arg(metavar="imagenet|none|FILE")] = "imagenet"
    """Initial weights of the encoder: imagenet (downloaded once), none (random), or the URI of a
    Keras weights file for the encoder without its top."""
    from_model: str | None = None
    """URI of a model bundle that training continues from, instead of --encoder-weights. Its classes
    and its network are the defaults of the other flags, and without --classes the learning rates
    are 0.3 times as high by default. Classes of the same name keep their learned output weights;
    other classes start from scratch. With other --classes, give --ignore-values and --ignore-others
    again. --image-size, --fit and --scale may differ from the model's, the encoder and the decoder
    may not."""
    frozen_epochs: int = 2
    """Epochs for which a pretrained encoder is frozen before it is fine-tuned; its batch-norm
    statistics stay frozen. An encoder with random weights, and that of --from-model, is trained
    from the first epoch."""
    calibrate: bool = True
    """Calibrate the finished model's confidence on the validation set by temperature scaling; masks
    do not change."""


@dataclass(frozen=True, kw_only=True)
class OptimisationFlags:
    """Recipe, learning rates, optimizer and loss."""

    recipe: Recipe = "segray"
    """Set of defaults. tutorial: the settings of TensorFlow's "Image segmentation" tutorial, for
    comparison. Other flags take precedence over a recipe."""
    epochs: int = 20
    """Passes over the training set. With --fit tile, a pass takes as many crops of an image as its
    pixels would fill windows of --image-size. A finished run cannot be extended, because the
    learning-rate schedule depends on the number of epochs."""
    batch_size: int = 8
    """Global batch size: images, or crops of them, per step over all workers. An incomplete last
    batch is dropped (other images each epoch); a training set smaller than a batch is repeated."""
    patience: int = 0
    """Early stopping: epochs without a better validation mean IoU after which training ends, those
    with a frozen encoder included; 0: never."""
    learning_rate: float = 1e-3
    """Peak learning rate of the decoder."""
    encoder_learning_rate: float = 3e-4
    """Peak learning rate of a pretrained encoder; 0 keeps it frozen."""
    optimizer: Optimizer = "muon"
    """Optimizer of the decoder's convolution kernels. All other weights use AdamW. Muon needs
    fewer steps."""
    schedule: Schedule = "cosine"
    """Learning-rate schedule after the warm-up."""
    warmup: float = 0.05
    """Share of the run over which the learning rate rises linearly to its peak."""
    weight_decay: float = 0.01
    """Decoupled weight decay (AdamW). Biases and batch-norm parameters are excluded."""
    loss: Loss = "ce+lovasz"
    """Training loss: cross-entropy, optionally plus the soft Dice or the Lovász-Softmax loss, both
    of which optimise the overlap (IoU) of ground truth and prediction; or focal loss."""
    class_weights: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="none|balanced|NAME=WEIGHT ...")
    ] = ("none",)
    """Weights of the classes in cross-entropy and focal loss. balanced: inversely proportional to
    their pixels. Classes that are not named have weight 1."""
    seed: int = 0
    """Seed of the split, the shuffling, the augmentation and the initial weights. With the same
    number of CPUs, the same seed gives the same model, bit for bit."""


@dataclass(frozen=True, kw_only=True)
class AugmentationFlags:
    """Random changes of the training images, new ones in each epoch."""

    flip: bool = True
    """Flip each training image horizontally with probability 0.5."""
    zoom: Annotated[tuple[float, float], tyro.conf.arg(metavar="LEAST MOST")] = (0.7, 1.1)
    """Range of the random crop's side, as a share of the image's side; above 1 zooms out. 1 1
    switches it off."""
    rotation: float = 10.0
    """Maximum random rotation, in degrees; 0 switches it off."""
    colour: float = 0.2
    """Maximum relative change of brightness, contrast and saturation; 0 switches it off."""
    blur: float = 0.0
    """Maximum standard deviation of a Gaussian blur of a random half of the training images, in
    pixels of the network's input; 0 switches it off."""
    noise: float = 0.0
    """Maximum standard deviation of noise in a random half of the training images, in grey levels
    (0 to 255); 0 switches it off."""


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The output folder and the tracking server."""

    output: str = "output/train"
    """URI of the folder that receives the model, its scores, checkpoints, metrics and previews."""
    mlflow: str | None = None
    """URL of an MLflow tracking server that also receives the metrics of each epoch. User name and
    password come from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""
    lock: bool = True
    """Lock an output in S3 against concurrent runs. --no-lock is for stores without conditional
    writes; then no two runs may share an output."""


@dataclass(frozen=True, kw_only=True)
class ClusterFlags:
    """The workers and their devices."""

    workers: Annotated[Workers, WORKERS_FLAG] = 1
    """Number of data-parallel worker processes, each of which takes a share of every batch. A range
    such as 1..4 trains elastically: with as many workers as fit, fewer when a node is lost, more at
    the end of an epoch. 0: train in the job's own process, as in a notebook."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    precision: Precision = "auto"
    """Numeric precision. auto: mixed_bfloat16 on GPUs with hardware support, float32 otherwise."""
    max_restarts: int = 3
    """Restarts after a worker failure, from the last finished epoch, before the job gives up. Each
    finished epoch resets the count."""


@dataclass(frozen=True, kw_only=True)
class ExpertFlags:
    """Settings that rarely need a change."""

    input_range: Annotated[Range | None, tyro.conf.arg(metavar="LOW HIGH")] = None
    """Range that the network scales pixel values to. Default: what the ImageNet weights of the
    encoder expect, such as -1 to 1 for MobileNetV2."""
    even_upsampling: bool = True
    """Average-pool (2x2) the output of each transposed convolution of the decoder, which removes
    their checkerboard artefacts."""
    batch_norm_momentum: float = 0.9
    """Momentum of the running statistics of batch normalisation in the decoder, and in an encoder
    with random weights."""
    overlap_weight: float = 0.5
    """Weight of the Dice or Lovász term; the cross-entropy has weight 1."""
    label_smoothing: float = 0.0
    """Label smoothing: share of the target that is spread evenly over all classes, 0 to 1."""
    foreground_share: float = 0.33
    """With --fit tile: share of the crops, 0 to 1, that are placed to contain a pixel of a random
    class of the image. All its classes are equally likely, so that rare ones are seen more
    often."""
    detail: float = 2.0
    """Resolution at which training images are cached, as a multiple of --image-size, so that crops
    stay sharp."""
    stretch: float = 0.1
    """Maximum random change of the aspect ratio; 0 switches it off."""
    cache: Cache = "auto"
    """Cache of decoded images. memory: Ray's object store. none: decode in every epoch. auto:
    memory if they fit."""
    stall_timeout: float = 600.0
    """Seconds to wait at a synchronisation point for a stalled worker before all workers are
    restarted."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    ExpertFlags,
    ClusterFlags,
    RunFlags,
    AugmentationFlags,
    OptimisationFlags,
    NetworkFlags,
    DataFlags,
):
    """Train a U-Net on images and masks, and write it as a model bundle.

    With neither --images nor --pairs, a small synthetic data set is drawn once into output/sample
    and used for training, with settings to match: a lower resolution, fewer epochs, no pretrained
    weights.
    A URI is a local path or s3://bucket/key; S3 is configured by the standard AWS environment.
    """

    def __post_init__(self) -> None:
        self._check_data()
        for name in ("epochs", "batch_size"):
            require(getattr(self, name) >= 1, f"{_flag(name)} must be at least 1")
        least, most = self.least_workers, self.most_workers
        require(least >= 0, "--workers must not be below 0")
        require(
            least == most or 1 <= least < most,
            f"--workers {name_workers(self.workers)}: a range goes from at least 1 up, as in 1..4",
        )
        for name in ("frozen_epochs", "patience", "max_restarts"):
            require(getattr(self, name) >= 0, f"{_flag(name)} must not be below 0")
        for name in ("learning_rate", "stall_timeout"):
            require(0 < getattr(self, name) < math.inf, f"{_flag(name)} must be a number above 0")
        for name in ("encoder_learning_rate", "weight_decay", "overlap_weight", "rotation"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{_flag(name)} must be a number, 0 or above")
        for name in ("warmup", "label_smoothing", "stretch", "colour", "batch_norm_momentum"):
            require(0 <= getattr(self, name) < 1, f"{_flag(name)} must be in 0 to 1, 1 excluded")
        require(0 <= self.blur <= _MAX_BLUR, f"--blur must be in 0 to {_MAX_BLUR}, in pixels")
        require(0 <= self.noise < 256, "--noise must be in 0 to 256, 256 excluded")
        require(0 <= self.max_error_rate <= 1, "--max-error-rate must be in 0 to 1")
        require(0 < self.scale <= MAX_SCALE, f"--scale must be above 0, and at most {MAX_SCALE:g}")
        require(
            self.scale == 1 or self.fit == "tile",
            "--scale is of images that windows are cut from: give --fit tile, or leave it out",
        )
        require(0 <= self.foreground_share <= 1, "--foreground-share must be in 0 to 1")
        require(
            self.foreground_share == ExpertFlags.foreground_share or self.fit == "tile",
            "--foreground-share is of crops: give --fit tile, or leave it out",
        )
        require(
            self.detail in (ExpertFlags.detail, 1) or self.fit != "tile",
            "--detail is of images that are scaled to --image-size: leave it out with --fit tile",
        )
        require(
            self.from_model is None or self.encoder_weights in ("imagenet", "none"),
            "--from-model has the encoder's weights: leave out --encoder-weights",
        )
        require(1 <= self.detail <= 4, "--detail must be in 1 to 4")
        require(0 < self.zoom[0] <= self.zoom[1] <= 4, "--zoom takes two shares, as in 0.7 1.1")
        require(
            self.recipe != "tutorial" or self.encoder == "MobileNetV2",
            f"--recipe tutorial has a MobileNetV2 and not a {self.encoder}: choose one of them",
        )
        low, high = self.input_range or (0, 1)
        require(-math.inf < low < high < math.inf, "--input-range takes two numbers, as in -1 1")
        check_range(self.value_range)
        require(0 <= self.seed < 2**32, "--seed must be in 0 to 4294967295")
        self.weigh_classes(np.ones(len(self.labels), dtype=np.int64))

    @property
    def least_workers(self) -> int:
        """The fewest workers that a run starts and continues with."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """The most workers that a run has at a time."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def workers_use_gpu(self) -> bool:
        """True if workers ask Ray for GPUs; without workers the job's own process finds its GPU."""
        return self.use_gpu and self.most_workers > 0

    def check_shares(self) -> None:
        """Refuse a batch that is too small for the workers.

        The two are checked together late because a recipe may set one and a flag the other.

        Raises:
            InputError: a worker would have no image of a batch.
        """
        require(
            self.batch_size >= self.most_workers,
            f"--batch-size {self.batch_size} has no image for some of --workers "
            f"{name_workers(self.workers)}: give at least --batch-size {self.most_workers}, or "
            "fewer workers",
        )

    def _check_data(self) -> None:
        names = ("images", "masks", "output", "validation_images", "validation_masks", "from_model")
        for name in names:
            require(getattr(self, name) != "", f"{_flag(name)} is empty: give a URI")
        require(
            self.pairs is None or (self.pairs != () and "" not in self.pairs),
            "--pairs is empty: give a URI",
        )
        require(
            (self.images is None) == (self.masks is None),
            "--images and --masks go together: give both",
        )
        require(
            self.images is None or self.pairs is None,
            "--pairs names images and masks itself: leave out --images and --masks",
        )
        require(
            self.images is not None or not (self.image_suffix or self.mask_suffix),
            "--image-suffix and --mask-suffix are of files in --images and --masks: give these",
        )
        require(
            (self.validation_images is None) == (self.validation_masks is None),
            "--validation-images and --validation-masks go together",
        )
        require(
            self.images is not None or self.validation_images is None,
            "--validation-images needs --images and --masks to train on",
        )
        require(
            0 < self.validation_fraction < 1, "--validation-fraction must be above 0 and below 1"
        )

    @cached_property
    def labels(self) -> Labels:
        """The labels given by --classes, --ignore-values and --ignore-others."""
        return Labels.parse(self.classes, self.ignore_values, self.ignore_others)

    def count_parts(self, cores: int, workers: int) -> int:
        """The number of parts of a worker's share of a batch that pass through the network in
        parallel, each on a core of its own (`segray.training.step.parts`).

        Args:
            cores: the cores of a worker; 0 leaves the choice to TensorFlow.
            workers: the number of workers.
        """
        share = self.batch_size // workers
        return max(1, min(cores, share // _IMAGES_OF_A_PART, MOST_PARTS))

    @property
    def frame(self) -> Frame:
        """The rectangle that images are brought to for the network."""
        return Frame(*split_size(self.image_size), self.fit, self.scale)

    @property
    def training_frame(self) -> Frame:
        """The rectangle that training images are brought to and cached; with --fit tile, that of
        the crops."""
        if self.fit == "tile":
            return self._crop_frame()
        return self.frame.resize(self.detail) if self.zoom != (1.0, 1.0) else self.frame

    def _crop_frame(self) -> Frame:
        """The frame of crops that have enough around a window to be zoomed out of and turned."""
        height, width = self.frame.shape
        most = math.radians(min(self.rotation, 90.0))
        reach = self.zoom[1] * math.sqrt(1 + self.stretch)
        # An even margin on both sides.
        margins = (
            math.ceil(max(0.0, reach * _turned(side, other, most) - side) / 2)
            for side, other in ((height, width), (width, height))
        )
        down, along = margins
        return replace(self.frame, height=height + 2 * down, width=width + 2 * along)

    @property
    def margins(self) -> tuple[int, int]:
        """The rows above and below, and the columns left and right, of the window in a crop."""
        if self.fit != "tile":
            return (0, 0)
        crop, window = self.training_frame, self.frame
        return (crop.height - window.height) // 2, (crop.width - window.width) // 2

    @property
    def samples(self) -> int:
        """The number of samples per side of which a pixel of an augmented image is the mean."""
        if self.fit == "tile" or self.zoom == (1.0, 1.0):
            return max(1, round(self.zoom[1]))
        # At most two pixels of the cached image apart, which is as far as a sample reaches.
        return math.ceil(self.detail * max(1, self.zoom[1] / 2))

    @property
    def architecture(self) -> Architecture:
        """The settings of the network."""
        return Architecture(
            len(self.labels),
            *self.frame.shape,
            self.encoder,
            self.decoder,
            self.input_range or ENCODERS[self.encoder].input_range,
            self.even_upsampling,
        )

    @property
    def augmentation(self) -> Augmentation:
        """The settings of random augmentation."""
        return Augmentation(
            *(self.flip, self.zoom, self.stretch, self.rotation, self.colour),
            *(self.blur, self.noise),
        )

    def weigh_classes(self, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Compute the loss weight of each class, float32 [C], from --class-weights.

        Args:
            pixels: the number of pixels of each class in the training set, int64 [C].

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
            require(
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
            require(
                0 <= weights[index] < math.inf,
                f"--class-weights: {word!r} must be in 0 to 3e38",
            )
        require(bool(weights.any()), "--class-weights: one must be above 0")
        return weights

    def to_json(self) -> dict[str, Any]:
        """Return the settings, JSON-ready, as the bundle records them."""
        settings = {item.name: getattr(self, item.name) for item in fields(self)}
        return settings | {"image_size": join_size(*split_size(self.image_size))}


def _turned(side: int, other: int, most: float) -> float:
    """Return the greatest extent along a side of a rectangle that is turned by an angle or less."""
    angle = min(most, math.atan2(other, side))
    return side * math.cos(angle) + other * math.sin(angle)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"

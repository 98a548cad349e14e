"""The configuration of a segmentation: the flags of jobs/segment.py, with their defaults."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from segray.errors import InputError
from segray.model.predictor import Engine
from segray.pixels.canvas import OVERLAP, check_overlap
from segray.pixels.decoding import SUFFIXES
from segray.pixels.limits import MAX_MASK, MAX_PIXELS
from segray.pixels.regions import MIN_AREA
from segray.pixels.wide import ValueRange, check_range

MaskSize = Literal["original", "model"]


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The model and the images."""

    model: str = "output/train/model"
    """URI of the model bundle, the folder model/ in the output of jobs/train.py."""
    images: str | None = None
    """URI of the folder of images, searched recursively. Required with --model; default without it:
    sample images."""
    manifest: str | None = None
    """Instead of --images: URI of a CSV or Parquet file with a column uri (and size and etag, so
    that changes are noticed), of a folder of such Parquet files, or of the manifest.json of an S3
    Inventory."""
    suffixes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SUFFIX ...")] = SUFFIXES
    """Suffixes of the images' names, in upper or lower case; '' for any name."""
    include: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN ...")] = ()
    """Take only images whose key matches one of these, as in '2024/*'; * matches slashes too. The
    key is the path below --images; of an image that --manifest names, the object's key in its
    bucket, or the path below the table's folder."""
    exclude: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN ...")] = ()
    """Leave out images whose key matches one of these."""
    limit: int | None = None
    """Segment at most this many images: the first ones of the manifest, or in the order of their
    URIs. Default: all."""
    value_range: Annotated[ValueRange | None, tyro.conf.arg(metavar="LOW HIGH")] = None
    """Pixel values, 0 to 65535, of black and white in images of more than 8 bits per channel.
    Default: the range in the model bundle."""
    max_pixels: int = MAX_PIXELS
    """Images with more pixels fail, because decoding takes up to 16 bytes of memory for each pixel,
    and 7 more with --fit tile. Large TIFFs are read in rows with --fit tile, and may have more."""
    overlap: float = OVERLAP
    """Minimum overlap of neighbouring windows, as a share of a window's side, 0 to 0.9; for models
    trained with --fit tile."""
    test_time_flip: bool = False
    """Average the prediction for each image with that for its mirror image: better masks, for twice
    the time."""


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The results, and what becomes of earlier ones."""

    output: str = "output/segment"
    """URI of the folder that receives results, errors, the manifest, report.html and run.json."""
    mask_size: MaskSize = "original"
    """Resolution of the masks: each image's own, or that at which the network sees it."""
    regions: bool = False
    """Write a row for each connected region of a mask, too, and the number of regions of each
    class."""
    min_area: int = MIN_AREA
    """Minimum size of a region, in pixels of the mask; smaller ones are neither written nor
    counted."""
    retry_errors: bool = False
    """Try the images again that failed in an earlier run."""
    prune: bool = False
    """Remove the rows of images that are gone or have changed since."""
    overwrite: bool = False
    """Delete the files of earlier runs in the output, and start over. If such a run is interrupted,
    the same command continues it."""
    max_error_rate: float = 0.05
    """Share of failed images, 0 to 1, above which the job exits with status 1."""
    max_drift: float | None = None
    """Distance from the training images, 0 to 1, above which the job exits with status 3, and keeps
    the results. It is the largest distance of a feature, such as brightness. A feature counts only
    if its distance is above 0.15 and larger than chance explains, so that few images rarely show
    drift. Try 0.3 first. Default: no limit."""
    dry_run: bool = False
    """Write nothing to the output, and forecast the run from a trial on a sample: its hours, its
    requests, the size of its results, and what will fail."""
    price: float | None = None
    """With --dry-run: dollars per node and hour, for the costs of the run."""
    lock: bool = True
    """Lock an output in S3 against concurrent runs. --no-lock is for stores without conditional
    writes; then no two runs may share an output."""


@dataclass(frozen=True, kw_only=True)
class ClusterFlags:
    """The engine, the workers and their devices."""

    engine: Engine = "auto"
    """Inference engine. auto: onnx, which is ONNX Runtime."""
    workers: int | None = None
    """Maximum number of worker processes, or of GPUs with --use-gpu. 0: segment in the job's own
    process. Default: one per CPU or GPU of the cluster, and more as it grows; without a cluster, 0
    for a few images."""
    use_gpu: bool = False
    """Predict on GPUs; all CPUs of the cluster fetch, decode and write for them."""
    batch_size: int = 32
    """Images per batch; with --fit tile, windows of them."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(ClusterFlags, RunFlags, DataFlags):
    """Segment every image below a URI, and write masks and pixel statistics as Parquet.

    If you run it again on the same output, it segments what is missing: new and changed images, and
    what an interrupted run left. With no flags at all it segments sample images with the model that
    jobs/train.py just wrote. A URI is a local path or s3://bucket/key; S3 is configured by the
    standard AWS environment.
    """

    def __post_init__(self) -> None:
        for name in ("model", "images", "manifest", "output"):
            if getattr(self, name) == "":
                raise InputError(f"--{name} is empty: give a URI")
        if self.images is not None and self.manifest is not None:
            raise InputError("--manifest names the images itself: leave out --images")
        if self.workers is not None and self.workers < 0:
            raise InputError("--workers must not be below 0")
        if self.prune and self.limit is not None:
            raise InputError(
                "--prune would remove the rows of all images that --limit leaves out: leave out "
                "--limit or --prune"
            )
        if self.min_area != MIN_AREA and not self.regions:
            raise InputError("--min-area is for --regions: give both, or leave out --min-area")
        for name in ("limit", "batch_size", "min_area"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1")
        if not 1 <= self.max_pixels <= MAX_MASK:
            raise InputError(f"--max-pixels must be in 1 to {MAX_MASK}")
        if self.price is not None and not self.dry_run:
            raise InputError("--price is for the forecast of --dry-run: give that, too")
        if self.price is not None and not self.price >= 0:
            raise InputError("--price must not be below 0")
        check_range(self.value_range)
        check_overlap(self.overlap)
        if not 0 <= self.max_error_rate <= 1:
            raise InputError("--max-error-rate must be in 0 to 1")
        if self.max_drift is not None and not 0 <= self.max_drift <= 1:
            raise InputError("--max-drift must be in 0 to 1")

    def to_json(self) -> dict[str, Any]:
        """Return the settings, JSON-ready, as run.json records them."""
        return dict(vars(self))

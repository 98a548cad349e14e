"""The configuration of an export: the flags of jobs/export.py, with their defaults."""

from dataclasses import dataclass
from typing import Literal

from segray.errors import require

Format = Literal["png", "rle", "overlay"]

# Pixels; an image is decoded to a square of this side, which takes 200 MB.
_MAX_SIDE = 8192


@dataclass(frozen=True)
class ExportConfig:
    """Write the masks of a segmentation as files for other tools.

    If you run it again on the same output, it writes what is missing: the masks of new and changed
    images, and those that an interrupted run did not reach. Without flags it exports what
    jobs/segment.py wrote without flags. A URI is a local path or s3://bucket/key; S3 is configured
    by the standard AWS environment.
    """

    results: str = "output/segment"
    """URI of the output folder of jobs/segment.py."""
    output: str | None = None
    """URI of the folder that receives the files; each format needs a folder of its own. Default:
    output/export/FORMAT."""
    format: Format = "png"
    """png: a grey file for each image, such as cat.jpg.png for cat.jpg, whose values are class ids:
    0, 1, … in the order of the model's classes, and not the mask values of --classes. rle: all
    masks as COCO RLE in annotations.json. overlay: each image with its mask drawn over it."""
    palette: bool = False
    """Write png files with indexed colours, for viewing. Some programs, including TensorFlow and
    Keras, convert them to the greys of the colours instead of class ids."""

    max_side: int = 1024
    """Maximum length of an overlay's longer side, in pixels."""
    max_error_rate: float = 0.05
    """Share of masks that could not be exported, 0 to 1, above which the job exits with status
    1."""
    workers: int | None = None
    """Number of concurrent Ray worker processes. 0: export in the job's own process. Default: one
    per CPU, or 0 for fewer than 500 masks."""

    lock: bool = True
    """Lock an output in S3 against concurrent runs. --no-lock is for stores without conditional
    writes; then no two runs may share an output."""

    def __post_init__(self) -> None:
        for name in ("results", "output"):
            require(getattr(self, name) != "", f"--{name} is empty: give a URI")
        require(
            not self.palette or self.format == "png",
            "--palette is of --format png: leave one of them out",
        )
        require(16 <= self.max_side <= _MAX_SIDE, f"--max-side must be in 16 to {_MAX_SIDE} pixels")
        require(0 <= self.max_error_rate <= 1, "--max-error-rate must be in 0 to 1")
        require(self.workers is None or self.workers >= 0, "--workers must be at least 0")

"""The configuration of an export: the flags of jobs/export.py, with their defaults."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from segray.errors import InputError
from segray.storage.access import ORDINARY, S3Access

#: What masks can be written as.
FORMATS = ("png", "rle", "overlay")

# Of a square that images are decoded to, 200 MB.
_MAX_SIDE = 8192


@dataclass(frozen=True)
class ExportConfig:
    """Write the masks of a segmentation as files that other tools read.

    Run again on the same output, it writes what is missing: masks of new and changed images, and
    what an interrupted run left. With no flags at all it exports what jobs/segment.py wrote without
    flags. A URI is a local path or s3://bucket/key; S3 is configured by the standard AWS
    environment.
    """

    results: str = "output/segment"
    """URI of the folder that jobs/segment.py was given as --output."""
    output: str | None = None
    """URI of the folder that receives the files, one for each format; default:
    output/export/FORMAT."""
    format: str = "png"
    """png: a grey file whose values are class ids (from 0 in the order of the model's classes) for
    each image, under the image's name and folders; rle: annotations.json, all masks as COCO RLE;
    overlay: each image with its mask drawn over it."""
    palette: bool = False
    """Write png as indexed colours, for people to look at. Some programs, TensorFlow and Keras
    among them, read the greys of the colours then, and no class ids."""

    max_side: int = 1024
    """Pixels of an overlay's longer side at most."""
    max_error_rate: float = 0.05
    """Share of masks that could not be exported, 0 to 1, above which the job exits with status
    1."""
    workers: int | None = None
    """How many processes of Ray work at once; 0: none, all is done in the job's own process;
    default: one for each CPU, and none for fewer than 500 masks."""

    lock: bool = True
    """Keep other runs away from an output in S3 while this one is at work. --no-lock leaves that to
    you, for stores that take no conditional writes."""

    s3: Annotated[S3Access, tyro.conf.arg(name="")] = ORDINARY

    def __post_init__(self) -> None:
        for name in ("results", "output"):
            _require(getattr(self, name) != "", f"--{name} is empty: give a URI")
        _require(
            self.format in FORMATS,
            f"there is no --format {self.format}: take one of {', '.join(FORMATS)}",
        )
        _require(
            not self.palette or self.format == "png",
            "--palette is of --format png: leave one of them out",
        )
        _require(
            16 <= self.max_side <= _MAX_SIDE, f"--max-side must be in 16 to {_MAX_SIDE} pixels"
        )
        _require(0 <= self.max_error_rate <= 1, "--max-error-rate must be in 0 to 1")
        _require(self.workers is None or self.workers >= 0, "--workers must be at least 0")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)

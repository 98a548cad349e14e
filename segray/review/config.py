"""The configuration of a review: the flags of jobs/review.py, with their defaults."""

from dataclasses import dataclass
from typing import Literal

from segray.errors import require

Format = Literal["pairs", "label-studio", "cvat"]


@dataclass(frozen=True)
class ReviewConfig:
    """Choose the images of a segmentation that are most worth labelling, with masks to correct.

    These are the images with the lowest expected IoU, over all classes and of each class. No two of
    them are alike. Each comes with the model's mask, to be corrected in an editor or an annotation
    tool. Corrected pairs are for jobs/train.py --pairs, together with --from-model. A URI is a
    local path or s3://bucket/key; S3 is configured by the standard AWS environment.
    """

    results: str = "output/segment"
    """URI of the output folder of jobs/segment.py."""
    labelled: tuple[str, ...] = ()
    """Tables of pairs, as --pairs of jobs/train.py takes them. Images that they list are not
    chosen, because they have been labelled already."""
    output: str = "output/review"
    """URI of the folder that receives the masks. It must be empty, because the masks of an earlier
    review may have been corrected."""
    count: int = 200
    """The number of images."""
    format: Format = "pairs"
    """pairs: a PNG file of mask values for each image, and pairs.csv. label-studio: tasks.json with
    the masks as predictions, and the labelling interface. cvat: annotations.xml, "CVAT for images
    1.1"."""
    lock: bool = True
    """Lock an output in S3 against concurrent runs. --no-lock is for stores without conditional
    writes; then no two runs may share an output."""

    def __post_init__(self) -> None:
        require("" not in self.labelled, "--labelled is empty: give a URI")
        for name in ("results", "output"):
            require(getattr(self, name) != "", f"--{name} is empty: give a URI")
        require(self.count >= 1, "--count must be at least 1")

"""The configuration of a comparison: the flags of jobs/compare.py, with their defaults."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from segray.errors import require


@dataclass(frozen=True)
class CompareConfig:
    """Compare two segmentations of the same images, such as by two models or on two days.

    It says what share of the pixels changed class, how far the masks agree on each class, and
    which images changed most, as a page and as Parquet. A URI is a local path or s3://bucket/key;
    S3 is configured by the standard AWS environment.
    """

    results: Annotated[tuple[str, ...], tyro.conf.arg(metavar="A B")] = ()
    """URIs of two output folders of jobs/segment.py: before and after."""
    output: str = "output/compare"
    """URI of the folder that receives compare.html, comparison.json and changes/*.parquet."""
    show: int = 24
    """The number of images on the page: those that changed most."""
    lock: bool = True
    """Lock an output in S3 against concurrent runs. --no-lock is for stores without conditional
    writes; then no two runs may share an output."""

    def __post_init__(self) -> None:
        require(
            len(self.results) == 2 and all(self.results),
            "--results takes two outputs of jobs/segment.py, as in --results runs/a runs/b",
        )
        require(self.output != "", "--output is empty: give a URI")
        require(0 <= self.show <= 200, "--show must be in 0 to 200")

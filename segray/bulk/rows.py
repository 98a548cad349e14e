"""The rows of a segmentation: an image's mask and its statistics, or the reason why it has none."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segray.bulk.config import MaskSize
from segray.model.bundle import Bundle
from segray.pixels.decoding import Picture
from segray.pixels.labels import Labels
from segray.pixels.masks import encode_mask, segment_logits
from segray.pixels.statistics import ClassStatistics
from segray.storage.listing import Entry


@dataclass(frozen=True)
class DecodedImage:
    """An image that is ready for the network.

    Attributes:
        entry: the image as it was listed.
        picture: its pixels in the frame of the network.
    """

    entry: Entry
    picture: Picture


@dataclass(frozen=True)
class Result:
    """A row of results.

    Attributes:
        row: its columns.
        picture: the image as the network saw it.
    """

    row: dict[str, Any]
    picture: Picture


@dataclass(frozen=True)
class Failure:
    """The reason why an image has no mask: a row of errors.

    Attributes:
        entry: the image as it was listed.
        stage: the stage that failed.
        error: the kind of error, to group by.
        message: the reason, for a person.
    """

    entry: Entry
    stage: Literal["fetch", "decode", "predict"]
    error: str
    message: str

    @property
    def row(self) -> dict[str, Any]:
        """The columns."""
        return {
            "id": self.entry.id,
            "uri": self.entry.uri,
            "stage": self.stage,
            "error": self.error,
            "message": self.message,
        }


def make_result(
    image: DecodedImage, logits: npt.NDArray[np.float32], bundle: Bundle, mask_size: MaskSize
) -> Result | Failure:
    """Make the mask of an image and its statistics.

    Args:
        image: the image.
        logits: float32 [H, W, C], of the network.
        bundle: the model.
        mask_size: size of the mask.

    Returns:
        A row of results, or a failure where the logits are not finite.
    """
    entry, picture = image.entry, image.picture
    logits = logits[picture.box.slices]
    own = mask_size == "original"
    height, width = (picture.height, picture.width) if own else logits.shape[:2]
    try:
        mask, statistics = segment_logits(logits, height, width)
    except ValueError as error:
        return Failure(entry, "predict", "NotFinite", str(error))
    name = entry.uri.rpartition("/")[2].rpartition(".")
    row = {
        "id": entry.id,
        "uri": entry.uri,
        "width": picture.width,
        "height": picture.height,
        "mask": {
            "bytes": encode_mask(mask, bundle.labels.palette),
            "path": f"{name[0] or name[2]}.png",
        },
        **_statistics_columns(statistics, bundle.labels),
        "model": bundle.digest,
    }
    return Result(row, picture)


def _statistics_columns(statistics: ClassStatistics, labels: Labels) -> dict[str, Any]:
    columns = zip(
        labels.names,
        statistics.pixels.tolist(),
        statistics.fractions.tolist(),
        statistics.confidences,
        strict=True,
    )
    row = {}
    for name, pixels, fraction, confidence in columns:
        row[f"pixels_{name}"] = pixels
        row[f"fraction_{name}"] = fraction
        row[f"confidence_{name}"] = confidence
    return row

"""Labelled pictures: an image and the class of each of its pixels, read from a pair of files."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segray.data.pairs import Pair
from segray.errors import InputError
from segray.pixels.decoding import DecodeError, Picture, read_picture
from segray.pixels.framing import Frame
from segray.pixels.labels import Labels
from segray.pixels.mask_files import Mask, read_mask
from segray.pixels.orientation import MaskOrientation, Says, swaps_sides, turn_mask
from segray.pixels.wide import ValueRange
from segray.storage.files import read_bytes


@dataclass(frozen=True)
class Reading:
    """The settings with which all files of a data set are read.

    Attributes:
        mask_orientation: how masks of images with an EXIF orientation were drawn. If it is ``auto``
            and the size of a mask does not tell, the mask is rotated with its image.
        value_range: see `segray.pixels.decoding.read_picture`.
    """

    mask_orientation: MaskOrientation = "auto"
    value_range: ValueRange | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Reading":
        """Read the settings that `to_json` returned."""
        low_high = document["value_range"]
        return cls(document["mask_orientation"], low_high and (low_high[0], low_high[1]))

    def to_json(self) -> dict[str, Any]:
        """Return the settings, JSON-ready."""
        return asdict(self)


#: The settings if nothing else is known.
DEFAULT_READING = Reading()


@dataclass(frozen=True)
class LabelledPicture:
    """A decoded pair of files.

    Attributes:
        picture: the image, brought to a frame, and its original width and height.
        class_ids: uint8 [H, W] at the original resolution of the image, upright like the image;
            `segray.pixels.labels.IGNORED` for ignored pixels.
        digest: the digest of the content of both files, 32 hexadecimal digits.
        says: the pair's evidence on the orientation in which the masks of its set were drawn.
        turned: True if the mask was rotated with its image.
    """

    picture: Picture
    class_ids: npt.NDArray[np.uint8]
    digest: str
    says: Says
    turned: bool


def read_pair(
    pair: Pair, labels: Labels, frame: int | Frame, reading: Reading = DEFAULT_READING
) -> LabelledPicture:
    """Read and decode a pair of files.

    Args:
        pair: the files.
        labels: the mapping from mask values or colours to classes.
        frame: the frame that the image is brought to, or the side of a square, in pixels.
        reading: the settings with which the files are read.

    Raises:
        InputError: a file cannot be read, or the mask does not fit its image or the classes; the
            message names the file.
    """
    return decode_pair(pair, fetch_pair(pair), labels, frame, reading)


def fetch_pair(pair: Pair) -> tuple[bytes, bytes]:
    """Read the content of both files.

    Raises:
        InputError: a file cannot be read; the message names it.
    """
    return read_bytes(pair.image), read_bytes(pair.mask)


def decode_pair(
    pair: Pair,
    contents: tuple[bytes, bytes],
    labels: Labels,
    frame: int | Frame,
    reading: Reading = DEFAULT_READING,
) -> LabelledPicture:
    """Decode the files that `fetch_pair` read; see `read_pair`."""
    uri = pair.image
    try:
        picture = read_picture(contents[0], frame, reading.value_range)
        uri = pair.mask
        mask = read_mask(contents[1], labels.coloured)
        says, turned = _compare(pair, picture, mask, reading.mask_orientation)
        ids = labels.to_class_ids(mask.values)
    except (DecodeError, InputError) as error:
        reason = str(error)
        raise InputError(reason if uri in reason else f"{uri}: {reason}") from error
    if turned:
        ids = turn_mask(ids, picture.orientation)
    return LabelledPicture(picture, ids, _digest(*contents), says, turned)


def _compare(pair: Pair, picture: Picture, mask: Mask, asked: MaskOrientation) -> tuple[Says, bool]:
    """Return the evidence in the sizes of an image and its mask, and whether to rotate the mask.

    A mask with an EXIF orientation of its own is made upright by that, just like its image,
    whatever the orientation of other masks.

    Raises:
        InputError: the mask does not have the required size.
    """
    height, width = mask.values.shape
    upright = picture.width, picture.height
    stored = upright[::-1] if swaps_sides(picture.orientation) else upright
    if picture.orientation == 1 or mask.orientation != 1:
        if (width, height) != upright:
            raise InputError(_describe_sizes(pair, picture, mask))
        return "nothing", False
    fits = [size == (width, height) for size in (stored, upright)]
    if not any(fits):
        raise InputError(_describe_sizes(pair, picture, mask))
    if asked == "auto":
        says: Says = "undecided" if all(fits) else "stored" if fits[0] else "upright"
        return says, fits[0]
    if not fits[asked == "upright"]:
        other = "upright" if asked == "stored" else "stored"
        raise InputError(
            f"{_describe_sizes(pair, picture, mask)}; this one is of the {other} size, against "
            f"--mask-orientation {asked}: leave that flag out, or save the mask anew"
        )
    return "nothing", asked == "stored"


def _describe_sizes(pair: Pair, picture: Picture, mask: Mask) -> str:
    """Describe the sizes of an image and its mask, with the EXIF orientation where it matters."""
    height, width = mask.values.shape
    own = f" by its EXIF orientation {mask.orientation}" if swaps_sides(mask.orientation) else ""
    sizes = f"{picture.width} x {picture.height}"
    if swaps_sides(picture.orientation):
        sizes += (
            f" by its EXIF orientation {picture.orientation}, stored as {picture.height} x "
            f"{picture.width}"
        )
    return (
        f"is {width} x {height} pixels{own}, and its image {pair.image} is {sizes}: a mask has the "
        "size of its image"
    )


def digest_pair(pair: Pair) -> str:
    """Return the digest of a pair as in `LabelledPicture`, without decoding it.

    Raises:
        InputError: a file cannot be read.
    """
    return _digest(*fetch_pair(pair))


def _digest(image: bytes, mask: bytes) -> str:
    return hashlib.blake2b(image + mask, digest_size=16).hexdigest()

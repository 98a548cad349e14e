"""Labelled pictures: an image and what each of its pixels is, read from a pair of files."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segray.errors import InputError
from segray.pixels.decoding import DecodeError, Mask, Picture, read_mask, read_picture
from segray.pixels.labels import Labels
from segray.pixels.orientation import MaskOrientation, Says, swaps_sides, turn_mask
from segray.pixels.wide import ValueRange
from segray.storage.files import read_bytes
from segray.storage.pairs import Pair


@dataclass(frozen=True)
class Reading:
    """How the files of all pairs of a set are read, where they do not say it themselves.

    Attributes:
        mask_orientation: how masks of images with an EXIF orientation were drawn; where it is
            ``auto`` and a pair leaves it open, its mask is turned with its image.
        value_range: see `segray.pixels.decoding.read_picture`.
    """

    mask_orientation: MaskOrientation = "auto"
    value_range: ValueRange | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Reading":
        """The reading that `to_json` wrote."""
        low_high = document["value_range"]
        return cls(document["mask_orientation"], low_high and (low_high[0], low_high[1]))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


#: What holds unless something else is known.
DEFAULT_READING = Reading()


@dataclass(frozen=True)
class LabelledPicture:
    """A pair of files, decoded.

    Attributes:
        picture: the image, scaled to a square, and its own width and height.
        class_ids: uint8 [H, W] at the image's own size, upright as the image,
            `segray.pixels.labels.IGNORED` where nothing is known.
        digest: of the content of both files, 32 hexadecimal digits.
        says: what the pair says of how the masks of its set were drawn.
        turned: whether the mask was turned with its image.
    """

    picture: Picture
    class_ids: npt.NDArray[np.uint8]
    digest: str
    says: Says
    turned: bool


def read_pair(
    pair: Pair, labels: Labels, image_size: int, reading: Reading = DEFAULT_READING
) -> LabelledPicture:
    """Read and decode a pair of files.

    Args:
        pair: the files.
        labels: says which mask value or colour is which class.
        image_size: the side of the square that the image is scaled to, in pixels.
        reading: how the files of the set are read.

    Raises:
        InputError: a file cannot be read, or the mask does not fit its image or the classes; the
            message names the file.
    """
    return decode_pair(pair, fetch_pair(pair), labels, image_size, reading)


def fetch_pair(pair: Pair) -> tuple[bytes, bytes]:
    """The content of both files.

    Raises:
        InputError: a file cannot be read; the message names it.
    """
    return read_bytes(pair.image), read_bytes(pair.mask)


def decode_pair(
    pair: Pair,
    contents: tuple[bytes, bytes],
    labels: Labels,
    image_size: int,
    reading: Reading = DEFAULT_READING,
) -> LabelledPicture:
    """Decode what `fetch_pair` has read; see `read_pair`."""
    uri = pair.image
    try:
        picture = read_picture(contents[0], image_size, reading.value_range)
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
    """What the sizes of an image and its mask say, and whether the mask has to be turned.

    A mask whose own EXIF turns it is upright by that, like the image by its own, whatever holds
    for the others.

    Raises:
        InputError: the mask is not of the size that it has to have.
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
    """Which sizes an image and its mask have, by EXIF too where that changes them."""
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
    """What `LabelledPicture` has as digest, without decoding.

    Raises:
        InputError: a file cannot be read.
    """
    return _digest(*fetch_pair(pair))


def _digest(image: bytes, mask: bytes) -> str:
    return hashlib.blake2b(image + mask, digest_size=16).hexdigest()

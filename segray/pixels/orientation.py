"""Orientation: the orientation in which an image is stored and in which its mask was drawn."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from segray.errors import InputError

#: The orientation in which masks were drawn. stored: on the pixels as stored, which is how programs
#: without EXIF support read them. upright: on the upright picture. auto: inferred from the shapes
#: of the pairs.
MaskOrientation = Literal["auto", "stored", "upright"]

#: The evidence of a pair's shape on that orientation. undecided: the mask fits both ways. nothing:
#: the image has no orientation, or the mask has its own.
Says = Literal["nothing", "undecided", "stored", "upright"]

# EXIF 2.32, tag 0x0112: the operation that turns each stored orientation upright.
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: The orientations that change something; all other numbers mean upright.
ORIENTATIONS = frozenset(_TO_UPRIGHT)


def swaps_sides(orientation: int) -> bool:
    """Return True if the stored and the upright image have width and height swapped."""
    return orientation in (5, 6, 7, 8)


def tell_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 if there is none."""
    try:
        told = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Damaged EXIF data are common and do not affect the pixels.
        return 1
    return told if told in ORIENTATIONS else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn stored pixels upright."""
    method = _TO_UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def turn_mask(mask: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Turn a mask, uint8 [H, W], that was drawn on stored pixels upright."""
    return np.asarray(turn_upright(Image.fromarray(mask), orientation))


def settle_orientation(said: Iterable[Says]) -> MaskOrientation:
    """Infer the orientation of all masks of a data set from the evidence of its pairs.

    Returns:
        ``stored`` or ``upright``; ``auto`` if the shape of each pair decides for itself.

    Raises:
        InputError: some pairs are undecided, and the others give no evidence or contradict each
            other.
    """
    counts: dict[Says, int] = {"nothing": 0, "undecided": 0, "stored": 0, "upright": 0}
    for word in said:
        counts[word] += 1
    if not counts["undecided"]:
        return "auto"
    if counts["stored"] and not counts["upright"]:
        return "stored"
    if counts["upright"] and not counts["stored"]:
        return "upright"
    others = (
        f"{counts['stored']} others have masks of the stored shape and {counts['upright']} of the "
        "upright one"
        if counts["stored"]
        else "no other image says it by its shape"
    )
    raise InputError(
        f"{counts['undecided']} image(s) are turned by their EXIF orientation, and their masks "
        f"would fit as they are and turned alike; {others}: say with --mask-orientation stored "
        "that masks are turned with their images, or with --mask-orientation upright that they "
        "are upright already"
    )

"""Orientation: which way up an image is stored, and which way up its mask was drawn."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.errors import InputError

#: What masks were drawn on: the pixels as they are stored, which other programs read without EXIF,
#: or the upright picture; auto: what the shapes of the pairs say.
MaskOrientation = Literal["auto", "stored", "upright"]

#: What a pair says of that by its shape. Undecided is one whose mask fits both ways; one without an
#: orientation, or whose mask tells its own, says nothing.
Says = Literal["nothing", "undecided", "stored", "upright"]

# EXIF 2.32, tag 0x0112: what brings each stored orientation upright.
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: The orientations that turn something; all other numbers mean upright.
ORIENTATIONS = frozenset(_TO_UPRIGHT)


def swaps_sides(orientation: int) -> bool:
    """Whether width and height are swapped between the stored and the upright image."""
    return orientation in (5, 6, 7, 8)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn stored pixels upright."""
    method = _TO_UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def turn_mask(mask: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """Turn a mask, uint8 [H, W], that was drawn on stored pixels upright."""
    return np.asarray(turn_upright(Image.fromarray(mask), orientation))


def settle_orientation(said: Iterable[Says]) -> MaskOrientation:
    """How the masks of a whole set are to be read, by what its pairs say.

    Returns:
        ``auto`` where each pair says it for itself.

    Raises:
        InputError: some pairs say nothing of it, and the others nothing or both.
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

"""Pictures: turn image files of unknown origin into upright pixels, or refuse them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from segray.pixels.bands import to_array
from segray.pixels.framing import Box, Frame
from segray.pixels.limits import MAX_PIXELS, MEMORY, check_row, check_scaled, memory_needed
from segray.pixels.opening import FORMATS, SUFFIXES, load_oriented, name_format, open_image
from segray.pixels.orientation import swaps_sides, turn_upright
from segray.pixels.refusals import DecodeError, reasons
from segray.pixels.scaling import REDUCED_MARGIN, scale_to_rgb
from segray.pixels.tiff import is_large_tiff
from segray.pixels.wide import (
    MAX_VALUE,
    ValueRange,
    find_reach,
    is_coloured,
    is_grey,
    join_bytes,
    tabulate,
    take_lower_bytes,
)

if TYPE_CHECKING:
    from segray.pixels.tiff_rows import TiffRows

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "DecodeError",
    "Picture",
    "count_pixels",
    "read_picture",
    "read_reach",
]


# Bytes for each pixel of an image that is not made small: its pixels as an array, and a scaled or
# converted image.
_ARRAY, _SCALED = 3, 4


@dataclass(frozen=True)
class Picture:
    """An image in the form that a model takes, with its original size.

    Attributes:
        pixels: uint8 [H, W, 3] RGB in [0, 255], EXIF orientation applied: of the size of the frame,
            or of the scaled image if windows are cut from it.
        width: the original width in pixels, EXIF orientation applied.
        height: the original height, likewise.
        box: the place of the image in the frame; the rest of the frame is padding.
        orientation: the EXIF orientation of the file, 1 to 8; 1 if its pixels are stored upright.
        rows: what to take the pixels from if they are too many to be decoded at once; `pixels` is
            empty then.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    box: Box
    orientation: int = 1
    rows: "TiffRows | None" = None

    @property
    def content(self) -> npt.NDArray[np.uint8]:
        """The pixels without padding, uint8 [h, w, 3], not to be written to."""
        return self.pixels[self.box.slices]


def read_picture(
    source: bytes | Image.Image,
    frame: int | Frame,
    value_range: ValueRange | None = None,
    in_rows: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Decode an image and bring it to a frame, as in training and segmenting.

    Of an animated image, the first frame is read. Alpha is dropped, and colour profiles are
    ignored. Thread-safe.

    Args:
        source: the content of an image file in one of `FORMATS`, recognised by content, or an image
            in memory. A JPEG of more than eight times the frame's sides is decoded at a reduced
            scale.
        frame: the frame, or the side of a square to scale to, in pixels.
        value_range: the pixel values of black and white in images of more than 8 bits per channel.
            Without it, 16-bit channels keep their upper 8 bits, except grey images with no value
            above 255, which are used unchanged.
        in_rows: True to open a TIFF of which windows are cut, and that has too many pixels to be
            decoded at once, for reading in rows.
        max_pixels: the maximum number of pixels of an image that is decoded at once.

    Raises:
        DecodeError: the bytes are not such an image, are damaged, or claim too many pixels, or more
            than can be decoded in `segray.pixels.limits.MAX_MEMORY`.
    """
    frame = Frame(frame, frame) if isinstance(frame, int) else frame
    with reasons(name_format(source)):
        if isinstance(source, Image.Image):
            if value_range and is_coloured(source):
                raise DecodeError(
                    "has 16 bits a channel, of which Pillow gives the upper 8 alone: give the "
                    "file's path or bytes instead of the image",
                    "unsupported",
                )
            check_scaled(source.size, frame, max_pixels)
            return _make_picture(source, frame, value_range)
        if (
            in_rows
            and frame.fit == "tile"
            and frame.scale == 1
            and is_large_tiff(source, max_pixels)
        ):
            return _read_rows(source, frame)
        image = open_image(source, max_pixels)
        check_scaled(image.size, frame, max_pixels)
        if value_range and is_coloured(image):
            return _read_coloured(image, source, frame, value_range, max_pixels)
        original_size = image.size
        extent = None
        if frame.fit != "tile":
            least = REDUCED_MARGIN * max(frame.shape)
            # Use the exact box, because a size that the scale does not divide is rounded up.
            _, extent = image.draft(image.mode, (least, least)) or (None, None)
        needed = memory_needed(image, source, original_size, max_pixels)
        if frame.fit == "tile":
            kept = image.mode == "RGB" and frame.scale == 1
            copies = _ARRAY if kept else _ARRAY + _SCALED
            needed += copies * math.prod(frame.place(*original_size)[2:])
        with MEMORY.reserved(needed):
            if extent is None:
                return _make_picture(image, frame, value_range)
            return _make_reduced(image, original_size, frame, extent)


def _read_rows(data: bytes, frame: Frame) -> Picture:
    """Open a TIFF that is too large to be decoded as a whole."""
    from segray.pixels.tiff_rows import TiffRows

    rows = TiffRows(data)
    height, width, _ = rows.shape
    check_row((width, height), frame)
    nothing = np.empty((0, 0, 3), dtype=np.uint8)
    return Picture(nothing, width, height, frame.place(height, width), rows=rows)


def count_pixels(data: bytes) -> int:
    """Return the number of pixels that an image file claims to have, without decoding any.

    Raises:
        DecodeError: as for `read_picture`.
    """
    with reasons(name_format(data)):
        width, height = open_image(data).size
        return width * height


def read_reach(data: bytes) -> int | None:
    """Return the greatest value of an image of more than 8 bits per channel, None for others.

    One value in a thousand may be greater (`segray.pixels.wide.find_reach`).

    Raises:
        DecodeError: as for `read_picture`.
    """
    with reasons(name_format(data)):
        image = open_image(data)
        if is_coloured(image):
            with _lower_bytes(image, data) as lower:
                image.load()
                return find_reach(image, lower)
        if not is_grey(image):
            return None
        with MEMORY.reserved(memory_needed(image, data, image.size)):
            image.load()
            return find_reach(image)


def _make_picture(image: Image.Image, frame: Frame, value_range: ValueRange | None) -> Picture:
    """Load an image, turn it upright, and then scale it.

    In this order, an image gives the same pixels, bit for bit, in whatever orientation it is
    stored: Pillow's means of blocks and its order of scaling the sides are not symmetric.
    """
    return _scale_upright(image, load_oriented(image), frame, value_range)


def _scale_upright(
    image: Image.Image,
    orientation: tuple[int, int],
    frame: Frame,
    value_range: ValueRange | None = None,
) -> Picture:
    told, left = orientation
    upright = turn_upright(image, left)
    box = frame.place(upright.height, upright.width)
    small = scale_to_rgb(upright, (box.width, box.height), upright.size, value_range)
    return Picture(frame.pad(to_array(small), box), *upright.size, box, told)


def _make_reduced(
    image: ImageFile.ImageFile,
    original_size: tuple[int, int],
    frame: Frame,
    extent: tuple[float, float, float, float],
) -> Picture:
    """Load a JPEG at a reduced scale, and scale the part at its upper left, of its full extent."""
    told, left = load_oriented(image)
    turned = swaps_sides(left)
    width, height = original_size[::-1] if turned else original_size
    box = frame.place(height, width)
    size = box.width, box.height
    small = scale_to_rgb(image, size[::-1] if turned else size, extent[2:])
    # Rotating few pixels is faster than many, and the pixels of a JPEG are not exact.
    pixels = frame.pad(np.asarray(turn_upright(small, left)), box)
    return Picture(pixels, width, height, box, told)


def _read_coloured(
    image: ImageFile.ImageFile,
    data: bytes,
    frame: Frame,
    value_range: ValueRange,
    max_pixels: int,
) -> Picture:
    """Convert an image of several wide channels to 8 bits, and scale it."""
    with _lower_bytes(image, data, max_pixels) as lower:
        orientation = load_oriented(image)
        join_bytes(image, lower, tabulate(value_range, MAX_VALUE))
        return _scale_upright(image, orientation, frame)


@contextmanager
def _lower_bytes(
    image: ImageFile.ImageFile, data: bytes, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Load the lower bytes of an image of several wide channels, with memory reserved for both."""
    with MEMORY.reserved(2 * memory_needed(image, data, image.size, max_pixels)):
        lower = open_image(data, max_pixels)
        take_lower_bytes(lower)
        lower.load()
        yield lower

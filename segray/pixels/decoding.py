"""Decoding: turn bytes of unknown origin into upright pixels, or into a reason for refusal."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from segray.pixels.framing import Box, Frame
from segray.pixels.limits import MAX_PIXELS, MEMORY, check_row, check_scaled, memory_needed
from segray.pixels.opening import FORMATS, SUFFIXES, load_oriented, name_format, open_image
from segray.pixels.orientation import swaps_sides, turn_upright
from segray.pixels.refusals import DecodeError, reasons
from segray.pixels.scaling import REDUCED_MARGIN, refuse_floats, scale_to_rgb, to_rgb
from segray.pixels.tiff import is_large_tiff
from segray.pixels.wide import (
    MAX_VALUE,
    ValueRange,
    check_values,
    find_reach,
    is_coloured,
    is_grey,
    join_bytes,
    raw_modes,
    tabulate,
    take_lower_bytes,
)

if TYPE_CHECKING:
    from segray.pixels.tiff_rows import TiffRows

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "DecodeError",
    "Mask",
    "Picture",
    "count_pixels",
    "read_mask",
    "read_picture",
    "read_reach",
]


# Bytes for each pixel of an image that is not made small: a scaled one, and its pixels as an array.
_COPIES = 4 + 3


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


@dataclass(frozen=True)
class Mask:
    """The content of a mask file.

    Attributes:
        values: uint8 or uint16 [H, W] of numbers, or uint32 [H, W] of 0xRRGGBB, with the file's own
            EXIF orientation applied.
        orientation: that orientation, 1 to 8; 1 if there is none.
    """

    values: npt.NDArray[np.integer[Any]]
    orientation: int = 1


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
            needed += _COPIES * math.prod(frame.place(*original_size)[2:])
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


def read_mask(data: bytes, coloured: bool = False) -> Mask:
    """Decode a mask file to the numbers or the colours of its pixels.

    Args:
        data: the content of an image file. For numbers it must have one channel; a palette image
            gives its indices. For colours it must be grey, RGB or a palette image, which gives the
            colours of its palette; alpha is dropped.
        coloured: True to decode colours.

    Raises:
        DecodeError: as for `read_picture`; or the compression is lossy, so that the values are not
            exact; or the mask has colour channels although numbers are expected.
    """
    with reasons(name_format(data)):
        image = open_image(data)
        lossy = _lossy_coding(image, data)
        if lossy:
            raise DecodeError(
                f"the mask is a {lossy}, which does not keep the exact values or colours that "
                "stand for the classes: save it as PNG, from the original and not from this file; "
                "or give images and masks the other way round, if this is the image",
                "unsupported",
            )
        with MEMORY.reserved(memory_needed(image, data, image.size)):
            return _read_colours(image) if coloured else _read_numbers(image)


def _read_numbers(image: Image.Image) -> Mask:
    refuse_floats(image)
    # Pillow scales grey of two and four bits to eight; a mask's values are the stored ones.
    coding = "".join(raw_modes(image)[:1])[:3]
    stretch = {"L;2": 85, "L;4": 17}.get(coding, 1)
    told, left = load_oriented(image)
    upright = turn_upright(image, left)
    if upright.mode == "1":
        return Mask(np.asarray(upright, dtype=np.uint8), told)
    if upright.mode in ("L", "P") or is_grey(upright):
        return Mask(_unsigned(np.asarray(upright)) // stretch, told)
    raise DecodeError(
        f"the mask has the channels {'+'.join(upright.getbands())}, and one of numbers has a "
        "single channel: if colours stand for the classes, give --classes name=#rrggbb, or else "
        "save it as a grey or palette image whose pixel values are the classes",
        "unsupported",
    )


def _read_colours(image: Image.Image) -> Mask:
    refuse_floats(image)
    if image.mode not in _COLOUR_MODES:
        raise DecodeError(
            f"the mask has pixels of the kind {image.mode}, and --classes name=#rrggbb needs red, "
            "green and blue of 8 bits: save it as an RGB or palette PNG",
            "unsupported",
        )
    told, left = load_oriented(image)
    pixels = np.asarray(to_rgb(turn_upright(image, left)))
    colours = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):
        colours <<= 8
        colours |= pixels[..., channel]
    return Mask(colours, told)


# Pillow's modes that can be converted to RGB without rounding.
_COLOUR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")


def _lossy_coding(image: Image.Image, data: bytes) -> str | None:
    """Return the name of the image's compression if it is lossy, else None."""
    if image.format == "JPEG":
        return "JPEG"
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression")):
        return "TIFF with JPEG compression"
    if image.format == "WEBP" and "VP8 " in _webp_chunks(data):
        return "lossy WEBP"
    return None


def _webp_chunks(data: bytes) -> Iterator[str]:
    """Yield the types of a WEBP file's chunks; "VP8 " has lossy pixels, "VP8L" lossless ones.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    place = len("RIFF") + 4 + len("WEBP")
    while place + 8 <= len(data):
        kind = data[place : place + 4].decode("latin-1")
        yield kind
        # The frame of an animation has chunks of its own, after 16 bytes about the frame.
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + (16 if kind == "ANMF" else length + length % 2)


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
    return Picture(frame.pad(np.asarray(small), box), *upright.size, box, told)


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


def _unsigned(values: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
    if values.dtype == np.uint8:
        return values
    check_values(values)
    return values.astype(np.uint16)

"""Limits: the maximum number of pixels of an image, and the memory that decoding may take."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from segray.pixels.formats import check_jpeg, may_tell_orientation
from segray.pixels.framing import Frame
from segray.pixels.orientation import tell_orientation
from segray.pixels.refusals import DecodeError

#: Images with more pixels are refused before any pixel is decoded, unless a user raises the limit.
#: Equals 2**30 // 4 // 3: a quarter of a gibibyte of RGB.
MAX_PIXELS = 89_478_485

#: The most pixels of a mask: those of the largest TIFF (`segray.pixels.tiff_rows`).
MAX_MASK = 1 << 29

# Pillow refuses what has over twice as many. The limit of a user may be above Pillow's own one, up
# to `MAX_MASK`, and each file is held to it by `check_pixels`.
Image.MAX_IMAGE_PIXELS = MAX_MASK // 2

#: The number of bytes that all threads of a process together decode into at a time. An image that
#: needs more is refused before any pixel is decoded, unless a user raises the limit of pixels.
#: Images that together need more wait for each other.
MAX_MEMORY = 3 << 28

# The pixels of a row of windows, whose logits are blended in memory: windows of 512 pixels on an
# image of 65,536.
_MAX_ROW = 1 << 25

# Pillow decodes a run-length encoded BMP in Python, at some five million pixels per second.
_MAX_RUN_LENGTH_PIXELS = 1 << 24

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15


def check_pixels(image: ImageFile.ImageFile, max_pixels: int) -> None:
    """Refuse an image, opened and not yet loaded, with too many pixels.

    Raises:
        DecodeError: it has more than so many, or is a large run-length encoded BMP.
    """
    limit, kind = max_pixels, ""
    if isinstance(image, BmpImageFile) and image.tile[0][0] == "bmp_rle":
        limit, kind = _MAX_RUN_LENGTH_PIXELS, " for a BMP of run lengths"
    if image.width * image.height > limit:
        raise DecodeError(
            f"claims {image.width} x {image.height} pixels, over the limit of {limit}{kind}",
            "too large",
        )


def check_scaled(size: tuple[int, int], frame: Frame, max_pixels: int) -> None:
    """Refuse an image of which windows would be cut, but nothing is left, or too much to blend.

    Args:
        size: the width and height of the image, upright or as it is stored.
        frame: the frame of the network.
        max_pixels: the maximum number of pixels.

    Raises:
        DecodeError: at the frame's scale it has no pixel; or, filled up to the size of a window,
            more than the maximum; or a row of windows has more than `_MAX_ROW`.
    """
    if frame.fit != "tile":
        return
    width, height = size
    box, scale = frame.place(height, width), frame.scale
    if not box.height * box.width:
        raise DecodeError(
            f"is {width} x {height} pixels, and nothing of it is left at the model's --scale of "
            f"{scale:g}",
            "too small",
        )
    padded = max(box.height, frame.height) * max(box.width, frame.width)
    if padded > max_pixels:
        raise DecodeError(
            f"is {width} x {height} pixels, of which at a scale of {scale:g} the network would see "
            f"{padded}, over the limit of {max_pixels}",
            "too large",
        )
    check_row(size, frame)


def check_row(size: tuple[int, int], frame: Frame) -> None:
    """Refuse an image if blending one row of its windows takes too much memory.

    Args:
        size: the width and height of the image, upright or as it is stored.
        frame: the frame of the network.

    Raises:
        DecodeError: it has more than `_MAX_ROW` pixels.
    """
    width, height = size
    row = max(frame.shape) * round(max(height, width) * frame.scale)
    if row > _MAX_ROW:
        raise DecodeError(
            f"is {width} x {height} pixels, of which at a scale of {frame.scale:g} the network "
            f"would see {row} in a row of windows, over the limit of {_MAX_ROW}",
            "too large",
        )


def memory_needed(
    image: ImageFile.ImageFile,
    content: bytes,
    full_size: tuple[int, int],
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Return the peak memory of decoding an image, in bytes, without the file's content.

    Args:
        image: the image, opened, not yet loaded, and set to the scale at which it will be decoded.
        content: the content of the file.
        full_size: the image's width and height at full scale.
        max_pixels: the maximum number of pixels of an image.

    Raises:
        DecodeError: it is above `MAX_MEMORY`, or above as much more as an image may have more
            pixels than `MAX_PIXELS`.
        ValueError: decoding would take very long.
    """
    width, height = full_size
    stored = {"1": 1, "L": 1, "P": 1}.get(image.mode, 4)
    # Pillow keeps a pointer to each row, and converts whole rows; an image may have a single one.
    pixels = stored * image.width * image.height
    needed = pixels + 8 * max(image.size)
    if isinstance(image, JpegImageFile):
        needed += check_jpeg(content) * width * height
        needed += pixels if tell_orientation(image) != 1 else 0  # and upright
    elif isinstance(image, WebPImageFile):
        # libwebp's canvas, the one before it, a copy of the frame, and Pillow's pixels.
        needed = 4 * pixels + (pixels if tell_orientation(image) != 1 else 0)
    elif isinstance(image, PngImageFile) and may_tell_orientation(content):
        needed *= 2  # the pixels as they are stored, and upright
    elif isinstance(image, TiffImageFile):
        needed += _tiff_memory(image)
    limit = max(MAX_MEMORY, MAX_MEMORY * max_pixels // MAX_PIXELS)
    if needed > limit:
        raise DecodeError(
            f"claims {width} x {height} pixels, and decoding this {image.format} takes "
            f"{needed >> 20} MiB, over the limit of {limit >> 20} MiB",
            "too large",
        )
    return needed


def _tiff_memory(image: TiffImageFile) -> int:
    """Return the bytes of a TIFF's largest strip or tile, plus its pixels if it is rotated."""
    covered = sum((box[2] - box[0]) * (box[3] - box[1]) for _, box, *_ in image.tile if box)
    if covered > image.width * image.height * len(image.getbands()):
        raise ValueError("its strips or tiles overlap")
    tags = image.tag_v2
    turned = 4 * image.width * image.height if tags.get(ExifTags.Base.Orientation, 1) != 1 else 0
    if image.info["compression"] == "raw":
        return turned  # Pillow reads these line by line, and libtiff the others part by part.
    rows = min(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height), image.height)
    columns, rows = tags.get(_TILE_WIDTH, image.width), tags.get(_TILE_LENGTH, rows)
    bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,)))
    bits *= tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)
    return turned + int(columns * rows * max(bits, 32)) // 8


class Memory:
    """An amount of memory that threads share; a thread that needs more than is free waits.

    Args:
        limit: the amount, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._changed = threading.Condition()

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Reserve ``size`` bytes (at most the limit) for the block, once they are free."""
        size = min(size, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


#: The memory that this process decodes into.
MEMORY = Memory(MAX_MEMORY)

"""Decoding: bytes of unknown origin in, upright pixels or a reason out."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from segray.pixels.formats import (
    check_gif,
    check_jpeg,
    check_tiff,
    check_webp,
    describe,
    identify,
    strip_png,
)
from segray.pixels.limits import MAX_PIXELS, MEMORY, check_pixels, memory_needed
from segray.pixels.refusals import DecodeError, reasons
from segray.pixels.scaling import REDUCED_MARGIN, check_grey, scale_to_rgb, to_rgb

__all__ = ["FORMATS", "SUFFIXES", "DecodeError", "Picture", "read_mask_values", "read_picture"]

# What Pillow may try on the bytes. Its other codecs are rarely used and less hardened. The
# classes are taken themselves, because `Image.open` drops the reason why one of them refuses.
_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}

#: The formats that are read, told by content.
FORMATS = tuple(_DECODERS)

#: The suffixes, in lower case, under which these formats are usually kept.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")


@dataclass(frozen=True)
class Picture:
    """An image as a model takes it, with the size it had.

    Attributes:
        pixels: uint8 [size, size, 3] RGB in [0, 255], EXIF orientation applied.
        width: the image's own width in pixels, EXIF orientation applied.
        height: likewise.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int


def read_picture(source: bytes | Image.Image, size: int | tuple[int, int]) -> Picture:
    """Decode an image and scale it, to a square as training and segmenting both do.

    The first frame of an animated image counts. Alpha is dropped, colour profiles are ignored.
    Of 16 bits the upper 8 are taken, but grey of which no value is over 255 is taken as it is.
    May be called on several threads at a time.

    Args:
        source: an image file's bytes (one of `FORMATS`, told by content), or an image in memory.
            JPEG bytes of over eight times `size` are decoded at a reduced scale.
        size: the side of the square, or the width and height to scale to, in pixels.

    Raises:
        DecodeError: the bytes are no such image, are damaged, or claim more than `MAX_PIXELS` or
            more than can be decoded in `MAX_MEMORY`.
    """
    size = (size, size) if isinstance(size, int) else size
    with reasons(_name(source)):
        if isinstance(source, Image.Image):
            return _make_picture(source, source.size, size)
        image = _open(source)
        own_size = image.size
        least = REDUCED_MARGIN * max(size)
        # The exact box, because a size that the scale does not divide is rounded up.
        _, box = image.draft(image.mode, (least, least)) or (None, None)
        with MEMORY.reserved(memory_needed(image, source, own_size)):
            return _make_picture(image, own_size, size, box)


def read_mask_values(data: bytes, coloured: bool = False) -> npt.NDArray[np.integer[Any]]:
    """Decode a mask file to the numbers, or the colours, that its pixels hold.

    Args:
        data: an image file's bytes. For numbers it has one channel; of a palette image the
            indices are taken. For colours it is grey or RGB, or a palette image, of which the
            palette's colours are taken; alpha is dropped.
        coloured: whether the colours are wanted.

    Returns:
        uint8 or uint16 [H, W] of numbers, or uint32 [H, W] of 0xRRGGBB; EXIF orientation applied.

    Raises:
        DecodeError: as `read_picture`; its coding is lossy, so that it does not hold exactly what
            was saved; or it has colour channels where numbers are wanted.
    """
    with reasons(_name(data)):
        image = _open(data)
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


def _read_numbers(image: Image.Image) -> npt.NDArray[np.integer[Any]]:
    # Pillow stretches grey of two and four bits to eight; a mask's values are those stored.
    tiles = getattr(image, "tile", None)
    stretch = {"L;2": 85, "L;4": 17}.get(str(tiles[0][3]) if tiles else "", 1)
    upright = _turn_upright(image, _orientation(image))
    if upright.mode == "1":
        return np.asarray(upright, dtype=np.uint8)
    if upright.mode in ("L", "P") or upright.mode.startswith("I"):
        return _unsigned(np.asarray(upright)) // stretch
    raise DecodeError(
        f"the mask has the channels {'+'.join(upright.getbands())}, and one of numbers has a "
        "single channel: if colours stand for the classes, give --classes name=#rrggbb, or else "
        "save it as a grey or palette image whose pixel values are the classes",
        "unsupported",
    )


def _read_colours(image: Image.Image) -> npt.NDArray[np.uint32]:
    if image.mode not in _COLOUR_MODES:
        raise DecodeError(
            f"the mask has pixels of the kind {image.mode}, and --classes name=#rrggbb needs red, "
            "green and blue of 8 bits: save it as an RGB or palette PNG",
            "unsupported",
        )
    pixels = np.asarray(to_rgb(_turn_upright(image, _orientation(image))))
    colours = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):
        colours <<= 8
        colours |= pixels[..., channel]
    return colours


# Pillow's modes that turn into RGB without rounding.
_COLOUR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")


def _lossy_coding(image: Image.Image, data: bytes) -> str | None:
    """The name of the image's coding if that changes pixels, else None."""
    if image.format == "JPEG":
        return "JPEG"
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression")):
        return "TIFF with JPEG compression"
    if image.format == "WEBP" and "VP8 " in _webp_chunks(data):
        return "lossy WEBP"
    return None


def _webp_chunks(data: bytes) -> Iterator[str]:
    """The kinds of a WEBP file's chunks; "VP8 " is lossy pixels, "VP8L" lossless ones.

    https://developers.google.com/speed/webp/docs/riff_container
    """
    place = len("RIFF") + 4 + len("WEBP")
    while place + 8 <= len(data):
        kind = data[place : place + 4].decode("latin-1")
        yield kind
        # A frame of an animation has chunks of its own, after 16 bytes about the frame.
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + (16 if kind == "ANMF" else length + length % 2)


def _open(data: bytes) -> ImageFile.ImageFile:
    if not data:
        raise DecodeError("the file is empty", "empty")
    name = identify(data)
    if name is None and data.count(0) == len(data):
        raise DecodeError("the file holds nothing but zeros", "damaged")
    if name is None:
        reads = ", ".join(FORMATS)
        raise DecodeError(
            f"not an image that segray reads, but {describe(data)} (it reads {reads})",
            "unsupported",
        )
    match name:
        case "JPEG":
            check_jpeg(data)
        case "PNG":
            data = strip_png(data)
        case "GIF":
            check_gif(data)
        case "TIFF":
            check_tiff(data)
        case "WEBP":
            check_webp(data)
    try:
        image = _DECODERS[name](io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise DecodeError(
            f"claims over {MAX_PIXELS} pixels, which is the limit", "too large"
        ) from error
    check_pixels(image)
    return image


def _orientation(image: Image.Image) -> int:
    # Of a TIFF Pillow turns the pixels upright itself as it loads, and then forgets the tag.
    image.load()
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Damaged EXIF is common in the wild and says nothing about the pixels.
        return 1


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
_TURNED = range(5, 9)  # those that swap width and height


def _turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _TO_UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _make_picture(
    image: Image.Image,
    own_size: tuple[int, int],
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
) -> Picture:
    """Load an image and scale it, or the box at its upper left, which has the size `own_size`."""
    orientation = _orientation(image)
    turned = orientation in _TURNED
    _, _, right, bottom = box or (0, 0, *image.size)
    small = scale_to_rgb(image, size[::-1] if turned else size, (right, bottom))
    # Few pixels are turned faster than many.
    pixels = np.asarray(_turn_upright(small, orientation))
    return Picture(pixels, *(own_size[::-1] if turned else own_size))


def _unsigned(values: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
    if values.dtype == np.uint8:
        return values
    check_grey(values)
    return values.astype(np.uint16)


def _name(source: bytes | Image.Image) -> str:
    name = source.format if isinstance(source, Image.Image) else identify(source)
    return name or "image"

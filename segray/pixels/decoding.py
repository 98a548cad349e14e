"""Decoding: bytes of unknown origin in, upright pixels or a reason out."""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

#: What Pillow may try on the bytes. Its other codecs are rarely used and less hardened.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")

#: The suffixes, in lower case, under which these formats are usually kept.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")

#: Images of more pixels than this are refused before a pixel is decoded. 2**30 bytes of RGB
#: over four, the limit that Pillow warns at.
MAX_PIXELS = 89_478_485

# A reduced-scale decode keeps at least this many times the size asked for, so that the
# anti-aliasing filter, and not the codec's scaling, decides what the small image looks like.
_REDUCED_MARGIN = 8


class DecodeError(Exception):
    """The bytes are no image that segray reads; the message is the reason, on one line."""


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


def read_picture(source: bytes | Image.Image, size: int) -> Picture:
    """Decode an image and scale it to a square, as training and segmenting both do.

    The first frame of an animated image counts. Alpha is dropped, colour profiles are ignored.

    Args:
        source: an image file's bytes (one of `FORMATS`, told by content), or an image in memory.
            JPEG bytes of over sixteen times `size` are decoded at a reduced scale.
        size: the side of the square in pixels.

    Raises:
        DecodeError: the bytes are no such image, are damaged, or claim more than `MAX_PIXELS`.
    """
    try:
        if isinstance(source, Image.Image):
            image, (width, height) = source, source.size
        else:
            image = _open(source)
            width, height = image.size
            image.draft(image.mode, (size * _REDUCED_MARGIN, size * _REDUCED_MARGIN))
        orientation = _orientation(image)
        if orientation in _TURNED:
            width, height = height, width
        upright = _to_rgb(_turn_upright(image, orientation))
        pixels = np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))
    except DecodeError:
        raise
    except Exception as error:
        # Codecs raise whatever comes to them: OSError, SyntaxError, struct.error, ...
        raise DecodeError(_reason(error)) from error
    return Picture(pixels, width, height)


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
        DecodeError: as `read_picture`; the image has colour channels where numbers are wanted; or
            it does not hold colours exactly where they are.
    """
    try:
        image = _open(data)
        return _read_colours(image, data) if coloured else _read_numbers(image)
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(_reason(error)) from error


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
        "save it as a grey or palette image whose pixel values are the classes"
    )


def _read_colours(image: Image.Image, data: bytes) -> npt.NDArray[np.uint32]:
    lossy = _lossy_coding(image, data)
    if lossy:
        raise DecodeError(
            f"the mask is a {lossy}, which does not keep the exact colours that stand for the "
            "classes: save it as PNG, from the original and not from this file"
        )
    if image.mode not in _COLOUR_MODES:
        raise DecodeError(
            f"the mask has pixels of the kind {image.mode}, and --classes name=#rrggbb needs red, "
            "green and blue of 8 bits: save it as an RGB or palette PNG"
        )
    pixels = np.asarray(_to_rgb(_turn_upright(image, _orientation(image))))
    colours = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):
        colours <<= 8
        colours |= pixels[..., channel]
    return colours


# Pillow's modes that turn into RGB without rounding.
_COLOUR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")


def _lossy_coding(image: Image.Image, data: bytes) -> str | None:
    """The name of the image's coding if that changes colours, else None."""
    if image.format in ("JPEG", "MPO"):
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


def _open(data: bytes) -> Image.Image:
    if not data:
        raise DecodeError("the file is empty")
    with warnings.catch_warnings():
        # The limit is checked below, in every case and with a reason.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise DecodeError(f"not an image that segray reads ({', '.join(FORMATS)})") from error
    if image.width * image.height > MAX_PIXELS:
        raise DecodeError(
            f"claims {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS}"
        )
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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits to 8 where it should scale.
        return Image.fromarray((_unsigned(np.asarray(image)) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DecodeError("has floating-point pixels: save it with 8 or 16 bits a channel")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        # Pillow warns of the alpha lost in one step, and here it is to be lost.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _unsigned(values: npt.NDArray[Any]) -> npt.NDArray[np.integer[Any]]:
    if values.dtype == np.uint8:
        return values
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise DecodeError("has pixel values outside 0 to 65535")
    return values.astype(np.uint16)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]

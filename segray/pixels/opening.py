"""Opening: turn bytes of unknown origin into a Pillow image, before any pixel is decoded."""

import io

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
from segray.pixels.limits import MAX_PIXELS, check_pixels
from segray.pixels.orientation import ORIENTATIONS, tell_orientation
from segray.pixels.refusals import DecodeError
from segray.pixels.tiff import explain_pixels, has_signed_bytes, mend_planes

# Pillow's decoders that may be used. Its other codecs are rarely needed and less hardened. Their
# classes are called directly, because `Image.open` drops the reason of a refusal.
_DECODERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}

#: The formats that are read, recognised by content.
FORMATS = tuple(_DECODERS)

#: The usual suffixes of these formats, in lower case.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")


def name_format(source: bytes | Image.Image) -> str:
    """Return the name of a file's or an image's format, for messages."""
    name = source.format if isinstance(source, Image.Image) else identify(source)
    return name or "image"


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """Open an image file, within `segray.pixels.refusals.reasons`.

    Args:
        data: the content of the file.
        max_pixels: the maximum number of pixels that it may claim.

    Raises:
        DecodeError: it is not an image that segray reads, or claims too many pixels.
        Exception: the exceptions of a codec.
    """
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
            f"claims over {max_pixels} pixels, which is the limit", "too large"
        ) from error
    except SyntaxError as error:
        if name == "TIFF" and str(error).startswith(_UNKNOWN_PIXELS):
            raise DecodeError(explain_pixels(data), "unsupported") from error
        raise
    check_pixels(image, max_pixels)
    if isinstance(image, TiffImageFile):
        if has_signed_bytes(image):
            raise DecodeError(explain_pixels(data), "unsupported")
        mend_planes(image)
    return image


# The messages with which Pillow refuses the pixel format of a TIFF.
_UNKNOWN_PIXELS = ("unknown pixel mode", "Invalid value for samples per pixel")


def load_oriented(image: Image.Image) -> tuple[int, int]:
    """Load the pixels of an image.

    Returns:
        The EXIF orientation of the file, and that of the loaded pixels. They differ because Pillow
        rotates a TIFF upright as it loads it, and then removes the tag.
    """
    told = image.tag_v2.get(ExifTags.Base.Orientation) if isinstance(image, TiffImageFile) else None
    image.load()
    left = tell_orientation(image)
    return (told if told in ORIENTATIONS else left), left

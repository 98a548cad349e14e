"""Opening: bytes of unknown origin become an image of Pillow's, before a pixel is decoded."""

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
from segray.pixels.orientation import ORIENTATIONS
from segray.pixels.refusals import DecodeError
from segray.pixels.tiff import explain_pixels, mend_planes

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


def name_format(source: bytes | Image.Image) -> str:
    """The name of a file's or an image's format, for a message."""
    name = source.format if isinstance(source, Image.Image) else identify(source)
    return name or "image"


def open_image(data: bytes) -> ImageFile.ImageFile:
    """Open an image file, within `segray.pixels.refusals.reasons`.

    Raises:
        DecodeError: it is none that segray reads, or claims too many pixels.
        Exception: whatever a codec raises.
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
            f"claims over {MAX_PIXELS} pixels, which is the limit", "too large"
        ) from error
    except SyntaxError as error:
        if name == "TIFF" and str(error).startswith(_UNKNOWN_PIXELS):
            raise DecodeError(explain_pixels(data), "unsupported") from error
        raise
    check_pixels(image)
    if isinstance(image, TiffImageFile):
        mend_planes(image)
    return image


# How Pillow refuses a TIFF for the kind of its pixels.
_UNKNOWN_PIXELS = ("unknown pixel mode", "Invalid value for samples per pixel")


def load_oriented(image: Image.Image) -> tuple[int, int]:
    """Load an image's pixels.

    Returns:
        The EXIF orientation of the file, and that of the pixels as they are loaded: Pillow turns a
        TIFF upright as it loads, and then forgets the tag.
    """
    told = image.tag_v2.get(ExifTags.Base.Orientation) if isinstance(image, TiffImageFile) else None
    image.load()
    try:
        left = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Damaged EXIF is common in the wild and says nothing about the pixels.
        left = 1
    left = left if left in ORIENTATIONS else 1
    return (told if told in ORIENTATIONS else left), left

"""Formats: what a file's bytes are, and which of them are fit for a decoder.

Pillow decodes; what is here is what it does not look at. A small file can keep it busy for
hours, and a picture that is fine can be refused for a text beside it.
"""

import codecs
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

# What a file of the formats that segray reads begins with.
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}

# What other files begin with that lie beside images, or under their names.
_OTHER_MAGIC = {
    b"%PDF-": "a PDF document",
    b"%!PS": "an EPS or PostScript document",
    b"\xc5\xd0\xd3\xc6": "an EPS document",
    b"8BPS": "a Photoshop image",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\1\0": "an icon (ICO)",
    b"\0\0\2\0": "a cursor (CUR)",
    b"P1": "a PBM image",
    b"P2": "a PGM image",
    b"P3": "a PPM image",
    b"P4": "a PBM image",
    b"P5": "a PGM image",
    b"P6": "a PPM image",
    b"\x76\x2f\x31\x01": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance HDR image",
    b"FUJIFILM": "a raw photograph (RAF)",
    b"IIU\0": "a raw photograph (RW2)",
    b"IIRO": "a raw photograph (ORF)",
    b"SIMPLE  =": "a FITS image",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"PAR1": "a Parquet file",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x1aE\xdf\xa3": "a video",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file",
}

# The brands of ISO base media files, which stand after "ftyp".
_BRANDS = {
    b"avif": "an AVIF image",
    b"avis": "an AVIF image",
    b"heic": "a HEIC image",
    b"heix": "a HEIC image",
    b"hevc": "a HEIC image",
    b"mif1": "a HEIF image",
    b"msf1": "a HEIF image",
    b"crx ": "a raw photograph (CR3)",
}

_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)

#: A JPEG of more scans is refused: each goes over all pixels, at some ten bytes of the file.
#: Encoders write ten or so. libtiff has the same limit (TIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER).
MAX_SCANS = 100

# Pillow puts the parts of EXIF together in a time that grows with the square of their number.
_MAX_EXIF_SEGMENTS = 100

# Some 640 MB of full segments in a JPEG, and 2 GB of an encoder's usual parts in a PNG. Pillow
# goes through them in Python, and keeps many of them.
_MAX_SEGMENTS = 10_000
_MAX_JUNK = 1 << 16  # bytes between two segments, which Pillow skips one by one
_MAX_PARTS = 1 << 18


def identify(data: bytes) -> str | None:
    """The format that segray reads by this content, such as ``JPEG``, or None."""
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    # Two letters alone would make a bitmap of many a text.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return None


def describe(data: bytes) -> str:
    """What content that `identify` does not know is, for a person, such as ``a PDF document``."""
    for magic, name in _OTHER_MAGIC.items():
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a video")
    try:
        # Incremental, because the last letter may be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(data[:512]).strip("\ufeff \r\n\t")
    except UnicodeDecodeError:
        return "a file of an unknown kind"
    if "<svg" in text:
        return "an SVG drawing"
    if text.lower().startswith(("<!doctype html", "<html")):
        return "a web page"
    if not text or not all(letter.isprintable() or letter.isspace() for letter in text):
        return "a file of an unknown kind"
    return f"text that begins {' '.join(text.split())[:40]!r}"


def strip_png(data: bytes) -> bytes:
    """A PNG without the parts that say nothing of its pixels, with the checksums verified.

    What is left are the pixels, the palette, and the places where an orientation can stand.
    Texts and colour profiles go, because Pillow refuses an image over a large one, and animations,
    because the first picture is the image.

    https://www.w3.org/TR/png-3/#5DataRep

    Raises:
        ValueError: a part is damaged or missing, or the file ends within one.
    """
    view = memoryview(data)
    kept = [view[:8]]
    kinds = set()
    place = 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8].ljust(8, b"\0"))
        end = place + 12 + length
        body = view[place + 8 : end - 4]
        place, part = end, view[place:end]
        if kind not in _PNG_PIXELS and not _tells_orientation(kind, bytes(body[:32])):
            continue
        if end > len(data):
            raise ValueError(f"truncated in its part {kind.decode()}")
        if zlib.crc32(part[4:-4]) != int.from_bytes(part[-4:], "big"):
            if kind in _PNG_PIXELS:
                raise ValueError(f"wrong checksum of its part {kind.decode()}")
            continue
        kept.append(part)
        kinds.add(kind)
        if len(kept) > _MAX_PARTS:
            raise ValueError(f"over {_MAX_PARTS} parts")
        if kind == b"IEND":
            break
    if b"IDAT" not in kinds:
        raise ValueError("no pixels" if b"IEND" in kinds else "truncated before its pixels")
    if data[25] == 3 and b"PLTE" not in kinds:
        raise ValueError("no palette")
    return b"".join(kept)


_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


# What those texts of a PNG begin with in which Pillow looks for the orientation.
_ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


def _tells_orientation(kind: bytes, beginning: bytes) -> bool:
    """Whether a part of a PNG is one of those in which Pillow looks for the orientation."""
    if kind == b"eXIf":
        return True
    return kind in (b"iTXt", b"zTXt", b"tEXt") and beginning.startswith(_ORIENTATION_TEXTS)


def may_tell_orientation(png: bytes) -> bool:
    """Whether a PNG holds what such a part begins with, if only by chance."""
    return any(word in png for word in (b"eXIf", *_ORIENTATION_TEXTS))


def check_jpeg(data: bytes) -> int:
    """Refuse a JPEG that would take hours to decode.

    https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B

    Returns:
        How many bytes libjpeg keeps of each pixel until the last is read, beside the pixels
        themselves: none where the file holds them line by line, and 2 for each channel where the
        channels, or the progressive refinements, come one after the other.

    Raises:
        ValueError: there are too many scans, or too much before the first.
    """
    channels = scans = exif_segments = kept = 0
    for number, (code, body) in enumerate(_jpeg_segments(data)):
        if number > _MAX_SEGMENTS:
            raise ValueError(f"over {_MAX_SEGMENTS} parts")
        if code in _JPEG_FRAMES and not channels:
            channels = body[5] if len(body) > 5 else 0
            if code in _JPEG_PROGRESSIVE:
                kept = 2 * channels
        elif code == _JPEG_SCAN:
            scans += 1
            if body and body[0] < channels:
                kept = 2 * channels
            # Without `kept` libjpeg decodes one scan. The exact walk is slow, and seldom needed.
            if scans == 1 and (not kept or data.count(b"\xff\xda") <= MAX_SCANS):
                break
            if scans > MAX_SCANS:
                raise ValueError(f"over {MAX_SCANS} scans")
        elif code == _JPEG_EXIF and body.startswith(b"Exif\0\0"):
            exif_segments += 1
            if exif_segments > _MAX_EXIF_SEGMENTS:
                raise ValueError(f"over {_MAX_EXIF_SEGMENTS} parts of EXIF")
    return kept


_JPEG_EXIF = 0xE1
_JPEG_SCAN = 0xDA
_JPEG_END = 0xD9
# All of C0 to CF but those that define tables.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
# Neither a byte of pixels (0), nor padding, nor a restart, nor a marker that stands alone.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the first bytes of each segment, up to the end of the image."""
    place, code = 2, 0
    while place < len(data) and code != _JPEG_END:
        marker = _JPEG_MARKER.search(data, place)
        junk = (marker.start() if marker else len(data)) - place
        if junk > _MAX_JUNK and code != _JPEG_SCAN:
            raise ValueError(f"over {_MAX_JUNK} bytes between its parts")
        if not marker:
            break
        code, start = data[marker.start() + 1], marker.end()
        length = int.from_bytes(data[start : start + 2], "big")
        yield code, data[start + 2 : start + min(length, 32)]
        place = start + max(length, 2)


def check_gif(data: bytes) -> None:
    """Refuse a GIF with more before its first picture than could mean anything.

    https://www.w3.org/Graphics/GIF/spec-gif89a.txt

    Raises:
        ValueError: there are too many blocks.
    """
    flags = data[10] if len(data) > 10 else 0
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    extension, picture, end = 0x21, 0x2C, 0x3B
    blocks = 0
    while place < len(data) and data[place] not in (picture, end):
        if data[place] == extension:
            place += 2
            while place < len(data) and data[place] and blocks <= _MAX_PARTS:
                place += 1 + data[place]
                blocks += 1
        place += 1
        blocks += 1
        if blocks > _MAX_PARTS:
            raise ValueError(f"over {_MAX_PARTS} blocks before its first picture")


def check_tiff(data: bytes) -> None:
    """Refuse a TIFF whose directory, which as a rule is written last, is not there.

    TIFF 6.0, section 2; BigTIFF has the place in 64 bits.

    Raises:
        ValueError: the file ends before it.
    """
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    big = 43 in data[2:4]
    directory = int.from_bytes(data[8:16] if big else data[4:8], order)
    if directory + 2 > len(data):
        raise ValueError("truncated before its directory")


def check_webp(data: bytes) -> None:
    """Refuse a WEBP that is shorter than it says.

    https://developers.google.com/speed/webp/docs/riff_container

    Raises:
        ValueError: it is.
    """
    if len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise ValueError("truncated")

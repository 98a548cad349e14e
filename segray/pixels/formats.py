"""Formats: recognise a file's format by its content, and refuse files that decoders cannot handle.

Pillow does the decoding; this module covers what Pillow does not check. A small file can keep it
busy for hours, and it refuses good pictures because of a large text beside them.
"""

import codecs
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

# The first bytes of files in the formats that segray reads.
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

# The first bytes of other files that are found beside images or under their names.
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

# The brands of ISO base media files, which follow "ftyp".
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

#: A JPEG with more scans is refused: a scan of some ten bytes makes the decoder pass over all
#: pixels. Encoders write about ten scans. libtiff has the same limit
#: (TIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER).
MAX_SCANS = 100

# Pillow joins the segments of EXIF in a time that is quadratic in their number.
_MAX_EXIF_SEGMENTS = 100

# Some 640 MB of full segments in a JPEG, or 2 GB of chunks of the usual size in a PNG. Pillow
# iterates over them in Python, and keeps many of them.
_MAX_SEGMENTS = 10_000
_MAX_JUNK = 1 << 16  # bytes between two segments, which Pillow skips one by one
_MAX_PARTS = 1 << 18


def identify(data: bytes) -> str | None:
    """Return the format of a file that segray reads, such as ``JPEG``, or None."""
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    # The two letters alone would match many texts.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return None


def describe(data: bytes) -> str:
    """Describe content that `identify` does not recognise, such as ``a PDF document``."""
    for magic, name in _OTHER_MAGIC.items():
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a video")
    try:
        # Incremental, because the last character may be incomplete.
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
    """Remove the chunks of a PNG that do not affect its pixels, and verify the checksums.

    The pixels, the palette, and chunks that may contain an orientation are kept. Texts and colour
    profiles are removed because Pillow refuses an image with a large one, animations because only
    the first picture is read.
    https://www.w3.org/TR/png-3/#5DataRep

    Raises:
        ValueError: a chunk is damaged or missing, or the file ends within one.
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


# The first bytes of those text chunks of a PNG in which Pillow looks for the orientation.
_ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


def _tells_orientation(kind: bytes, beginning: bytes) -> bool:
    """Return True for a chunk of a PNG in which Pillow looks for the orientation."""
    if kind == b"eXIf":
        return True
    return kind in (b"iTXt", b"zTXt", b"tEXt") and beginning.startswith(_ORIENTATION_TEXTS)


def may_tell_orientation(png: bytes) -> bool:
    """Return True if a PNG contains the first bytes of such a chunk, if only by chance."""
    return any(word in png for word in (b"eXIf", *_ORIENTATION_TEXTS))


def check_jpeg(data: bytes) -> int:
    """Refuse a JPEG that would take hours to decode.

    https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B

    Returns:
        The number of bytes per pixel that libjpeg keeps until the end, besides the pixels: none if
        the file contains them line by line; 2 per channel if the channels, or progressive
        refinements, follow each other.

    Raises:
        ValueError: there are too many scans, or there is too much data before the first.
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
            # Without `kept`, libjpeg decodes one scan only. The exact walk is slow and rarely
            # needed.
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
# All of C0 to CF except those that define tables.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
# Not a pixel byte (0), padding, a restart, or a marker without a segment.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the first bytes of each segment, up to the end of the image."""
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
    """Refuse a GIF with an absurd number of blocks before its first picture.

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
    """Refuse a TIFF without its directory, which is usually the last part of the file.

    TIFF 6.0, section 2; BigTIFF has the offset in 64 bits.

    Raises:
        ValueError: the file ends before the directory.
    """
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    big = 43 in data[2:4]
    directory = int.from_bytes(data[8:16] if big else data[4:8], order)
    if directory + 2 > len(data):
        raise ValueError("truncated before its directory")


def check_webp(data: bytes) -> None:
    """Refuse a WEBP that is shorter than its header says.

    https://developers.google.com/speed/webp/docs/riff_container

    Raises:
        ValueError: the file is too short.
    """
    if len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise ValueError("truncated")

"""Crafted files: images written byte by byte, as no encoder would write them."""

import struct
import zlib
from typing import Any

import numpy.typing as npt

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
GIF_PICTURE = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


def part(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def png(
    width: int,
    height: int,
    rows: bytes,
    bits: int = 8,
    colour: int = 2,
    interlaced: int = 0,
    compressed: bytes | None = None,
) -> bytes:
    """A PNG of rows as they are stored, each with its filter's byte first."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    pixels = zlib.compress(rows) if compressed is None else compressed
    return PNG_MAGIC + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


def lines(pixels: npt.NDArray[Any]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def adam7(pixels: npt.NDArray[Any]) -> bytes:
    """Rows in the order of an interlaced PNG: https://www.w3.org/TR/png-3/#8InterlaceMethods"""
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    return b"".join(lines(pixels[top::down, left::right]) for top, left, down, right in passes)


def claim_in_jpeg(content: bytes, width: int, height: int) -> bytes:
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


def tiff(tags: dict[int, int | tuple[int, ...]], body: bytes = b"") -> bytes:
    """A little-endian TIFF: the body from byte 8 on, then one directory of numbers."""
    body += b"\0" * (len(body) % 2)
    directory = 8 + len(body)
    behind = directory + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, given in sorted(tags.items()):
        numbers = given if isinstance(given, tuple) else (given,)
        value = struct.pack(f"<{len(numbers)}L", *numbers)
        if len(value) > 4:
            place, values = struct.pack("<L", behind + len(values)), values + value
        else:
            place = value
        entries += struct.pack("<HHL", tag, 4, len(numbers)) + place
    head = b"II*\0" + struct.pack("<L", directory)
    return head + body + struct.pack("<H", len(tags)) + entries + bytes(4) + values


def loop(content: bytes) -> bytes:
    """A TIFF of `tiff` whose directory names itself as the next."""
    directory = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[directory : directory + 2], "little")
    place = directory + 2 + 12 * count
    return content[:place] + content[4:8] + content[place + 4 :]


def bmp(
    rows: bytes, width: int, height: int, bits: int, compression: int = 0, palette: bytes = b""
) -> bytes:
    start = 14 + 40 + len(palette)
    colours = len(palette) // 4
    head = b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start)
    fields = (40, width, height, 1, bits, compression, len(rows), 0, 0, colours, colours)
    return head + struct.pack("<IiiHHIIiiII", *fields) + palette + rows


def webp(width: int, height: int, lossless: bool = False) -> bytes:
    """A WEBP of a header alone: of a file with a canvas, or of lossless pixels."""
    if lossless:
        fields = width - 1 | height - 1 << 14
        chunk = b"VP8L" + struct.pack("<I", 6) + b"\x2f" + struct.pack("<I", fields) + b"\0"
    else:
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk

"""Rows of a large TIFF: decoded a few at a time, so that it is never in memory as a whole."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from segray.pixels.limits import MAX_MASK
from segray.pixels.refusals import DecodeError, reasons

# The pixels of a tile, or of a strip, that is decoded as a whole.
_MAX_SEGMENT = 1 << 25
# None, LZW, deflate, PackBits, Zstandard.
_COMPRESSIONS = {1, 5, 8, 32773, 32946, 50000}
# JPEG, and JPEG 2000 as slide scanners write it: a tile is an image with a size of its own.
_JPEG = 7
_IMAGES = {_JPEG, 33003, 33005, 34712}
_GREY, _RGB, _YCBCR = 1, 2, 6


class TiffRows:
    """The pixels of a TIFF, as an array of which rows are taken from top to bottom.

    Args:
        data: the content of the file: grey or RGB of 8 bits a channel, in tiles or strips.

    Attributes:
        shape: height, width, and 3 channels.

    Raises:
        DecodeError: the file is of another kind, is damaged, or has more pixels than
            `segray.pixels.limits.MAX_MASK`.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        with reasons("TIFF"), tifffile.TiffFile(io.BytesIO(data)) as file:
            page: Any = file.pages[0]
            self._page = page
            self._tables = page.jpegtables
            # The decoder is a closure, which no longer needs the file.
            self._decode = page.decode
            _check(page)
        self.shape = (page.imagelength, page.imagewidth, 3)
        self._length = page.tilelength if page.is_tiled else page.rowsperstrip
        self._in_a_row = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
        # The rows of tiles that were decoded last, by their numbers.
        self._kept: dict[int, npt.NDArray[np.uint8]] = {}

    def __getitem__(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Decode some rows, uint8 [n, W, 3] RGB.

        Raises:
            DecodeError: a tile or strip is missing or damaged.
        """
        start, stop, _ = rows.indices(self.shape[0])
        first, last = start // self._length, -(-stop // self._length)
        self._kept = {
            number: self._kept[number] if number in self._kept else self._decode_row(number)
            for number in range(first, last)
        }
        if not self._kept:
            return np.empty((0, *self.shape[1:]), dtype=np.uint8)
        whole = np.concatenate(list(self._kept.values()))
        return whole[start - first * self._length : stop - first * self._length]

    def _decode_row(self, number: int) -> npt.NDArray[np.uint8]:
        """Decode a row of tiles, or a strip, to uint8 [n, W, 3]."""
        page = self._page
        height = min(self._length, self.shape[0] - number * self._length)
        pixels = np.zeros((height, *self.shape[1:]), dtype=np.uint8)
        for index in range(number * self._in_a_row, (number + 1) * self._in_a_row):
            start, length = page.dataoffsets[index], page.databytecounts[index]
            if not length:
                continue  # as sparse files have it: black
            if start + length > len(self._data):
                raise DecodeError("the TIFF ends before its last tile or strip", "truncated")
            content = self._data[start : start + length]
            with reasons("TIFF"):
                if page.compression in _IMAGES:
                    self._check_size(content)
                decoded, place, shape = self._decode(content, index, jpegtables=self._tables)
            # A tile at a border reaches beyond the image.
            part = decoded[0, : min(shape[1], height), : self.shape[1] - place[3], :3]
            pixels[: part.shape[0], place[3] : place[3] + part.shape[1]] = part
        return pixels

    def _check_size(self, content: bytes) -> None:
        """Refuse a tile that is an image of another size, which may be many times larger."""
        page = self._page
        width = page.tilewidth if page.is_tiled else page.imagewidth
        with Image.open(io.BytesIO(content), formats=["JPEG", "JPEG2000"]) as image:
            if image.width > width or image.height > self._length:
                raise DecodeError(
                    f"a tile of the TIFF is an image of {image.width} x {image.height} pixels, and "
                    f"tiles are of {width} x {self._length}"
                )


def _check(page: Any) -> None:
    """Refuse a page that is not read in rows."""
    pixels = page.imagelength * page.imagewidth
    claim = f"is a TIFF of {page.imagewidth} x {page.imagelength} pixels"
    if pixels > MAX_MASK:
        raise DecodeError(f"{claim}, over the limit of {MAX_MASK}", "too large")
    if page.is_tiled:
        segment = page.tilelength * page.tilewidth
    else:
        segment = min(page.rowsperstrip, page.imagelength) * page.imagewidth
    if segment > _MAX_SEGMENT:
        raise DecodeError(
            f"{claim} in tiles or strips of {segment}, over the limit of {_MAX_SEGMENT}: save it "
            "with smaller tiles",
            "too large",
        )
    orientation = page.tags.get("Orientation")
    usual = (
        page.bitspersample == 8
        and page.sampleformat == 1
        and page.planarconfig == 1
        and page.imagedepth == 1
        and page.samplesperpixel in (1, 3, 4)
        # Only the codec of a JPEG converts YCbCr.
        and page.photometric in (_GREY, _RGB, *(_YCBCR,) * (page.compression == _JPEG))
        and page.compression in _COMPRESSIONS | _IMAGES
        and (orientation is None or orientation.value == 1)
    )
    if not usual:
        raise DecodeError(
            f"{claim}, and images of that size are read if they are upright, grey or RGB of 8 bits "
            "a channel, not planar, and not compressed in a rare way: save it so, or in smaller "
            "parts",
            "unsupported",
        )
    if page.is_tiled:
        count = -(-page.imagelength // page.tilelength) * -(-page.imagewidth // page.tilewidth)
    else:
        count = -(-page.imagelength // page.rowsperstrip)
    if min(len(page.dataoffsets), len(page.databytecounts)) < count:
        raise DecodeError("the directory of the TIFF lacks tiles or strips", "damaged")

"""Large TIFF files, read in rows; here they are small, and the limit is lower."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from segray.pixels import tiff
from segray.pixels.decoding import DecodeError, read_picture
from segray.pixels.framing import Frame
from segray.pixels.thumbnails import shrink
from segray.pixels.tiff_rows import TiffRows
from tests.support import draw_picture

TILES = Frame(64, 64, "tile")


def write(pixels: npt.NDArray[Any], **settings: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **settings)
    return buffer.getvalue()


def read(data: bytes, step: int) -> npt.NDArray[np.uint8]:
    rows = TiffRows(data)
    return np.concatenate([rows[top : top + step] for top in range(0, rows.shape[0], step)])


@pytest.mark.parametrize(
    "settings",
    [
        {"tile": (32, 48)},
        {"tile": (32, 48), "compression": "zlib"},
        {"tile": (16, 16), "compression": "lzw", "predictor": True},
        {"tile": (64, 64), "compression": "zstd", "bigtiff": True},
        {"tile": (32, 32), "compression": "packbits", "byteorder": ">"},
        {"rowsperstrip": 7},
        {"rowsperstrip": 1000, "compression": "zlib"},
    ],
    ids=str,
)
@pytest.mark.parametrize("step", [1, 40, 1000])
@pytest.mark.parametrize("channels", [0, 3, 4])
def test_rows_are_those_of_the_image(settings: dict[str, Any], step: int, channels: int) -> None:
    picture = draw_picture(150, 201)
    stored = {0: picture[..., 0], 3: picture, 4: np.dstack([picture, picture[..., 0]])}[channels]
    expected = picture if channels else np.repeat(picture[..., :1], 3, axis=2)
    photometric = "rgb" if channels else "minisblack"
    data = write(stored, photometric=photometric, **settings)
    np.testing.assert_array_equal(read(data, step), expected)


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("tile", [(64, 64), None])
def test_jpeg_tiles_are_decoded_as_pillow_does(photometric: str, tile: Any) -> None:
    settings = {"tile": tile, "rowsperstrip": 32, "photometric": photometric}
    data = write(draw_picture(150, 201), compression="jpeg", **settings)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read(data, 50), expected)


def test_a_tile_that_is_an_image_of_another_size_is_refused() -> None:
    """A small file could ask for gigabytes."""
    data = write(
        draw_picture(64, 64), tile=(64, 64), compression="jpeg", photometric="rgb", metadata=None
    )
    place = data.index(b"\xff\xc0") + 5
    claimed = data[:place] + (9_000).to_bytes(2, "big") * 2 + data[place + 4 :]
    with pytest.raises(DecodeError, match="9000 x 9000"):
        read(claimed, 64)


def test_windows_that_overlap_decode_no_tile_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = TiffRows(write(draw_picture(150, 201), tile=(32, 48), photometric="rgb"))
    decoded: list[int] = []
    decode = rows._decode_row
    monkeypatch.setattr(rows, "_decode_row", lambda n: (decoded.append(n), decode(n))[1])
    for top in range(0, 100, 24):
        rows[top : top + 50]
    assert decoded == sorted(set(decoded))


def test_a_large_tiff_is_opened_for_reading_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = draw_picture(150, 201)
    data = write(picture, tile=(32, 32), photometric="rgb")
    whole = read_picture(data, TILES, in_rows=True)
    monkeypatch.setattr(tiff, "MAX_PIXELS", 1000)

    opened = read_picture(data, TILES, in_rows=True)

    assert opened.rows is not None
    assert (opened.height, opened.width, opened.box) == (150, 201, whole.box)
    np.testing.assert_array_equal(opened.rows[0:150], whole.pixels)
    small, expected = shrink(opened, 32), shrink(whole, 32)
    assert small.pixels.shape == expected.pixels.shape
    assert np.abs(small.pixels.astype(int) - expected.pixels).mean() < 3


@pytest.mark.parametrize(
    ("pixels", "settings", "message"),
    [
        (np.zeros((40, 50), np.uint16), {}, "grey or RGB of 8 bits"),
        (np.zeros((40, 50), np.int8), {}, "grey or RGB of 8 bits"),
        (np.zeros((3, 40, 50), np.uint8), {"planarconfig": "separate"}, "not planar"),
        (np.zeros((40, 50, 3), np.uint8), {"photometric": "ycbcr", "compression": "zlib"}, "RGB"),
        (
            np.zeros((64, 64, 3), np.uint8),
            {"photometric": "ycbcr", "compression": "jpeg2000"},
            "RGB",
        ),
        (np.zeros((40, 50), np.uint8), {"extratags": [(274, 3, 1, 6, True)]}, "upright"),
    ],
)
def test_other_large_tiffs_are_refused(
    pixels: npt.NDArray[Any], settings: dict[str, Any], message: str
) -> None:
    settings = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack", **settings}
    with pytest.raises(DecodeError, match=message) as caught:
        TiffRows(write(pixels, **settings))
    assert "\n" not in str(caught.value)


def test_damaged_tiles_are_refused_when_they_are_reached() -> None:
    data = write(draw_picture(128, 64), tile=(32, 32), compression="zlib", photometric="rgb")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        start, length = file.pages[0].dataoffsets[5], file.pages[0].databytecounts[5]
    damaged = data[:start] + b"\xff" * length + data[start + length :]
    rows = TiffRows(damaged)
    assert rows[0:64].shape == (64, 64, 3)
    with pytest.raises(DecodeError, match="the TIFF is damaged"):
        rows[64:128]


@pytest.mark.parametrize("kept", [8, 9, 100])
def test_a_truncated_file_is_refused(kept: int) -> None:
    data = write(draw_picture(128, 64), tile=(32, 32), photometric="rgb")
    with pytest.raises(DecodeError):
        read(data[:kept], 64)


def test_tiles_that_are_too_large_are_refused() -> None:
    data = bytearray(write(np.zeros((40, 50), np.uint8), tile=(16, 16)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        places = [file.pages[0].tags[name].valueoffset for name in ("TileWidth", "TileLength")]
    for place in places:
        data[place : place + 2] = (1 << 14).to_bytes(2, "little")
    with pytest.raises(DecodeError, match="over the limit"):
        TiffRows(bytes(data))

"""Images of more than 8 bits a channel: which of their values are black and white."""

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.pixels import bands
from segray.pixels.decoding import DecodeError, read_picture, read_reach
from segray.pixels.mask_files import read_mask
from segray.pixels.wide import choose_range
from tests.corpus import STORED, oriented, save
from tests.crafted import adam7, lines, png, tiff
from tests.support import draw_picture, encode

HEIGHT, WIDTH, SIZE = 48, 80, 32
TWELVE_BITS = (0, 4095)

# Pixels of 8 bits, and the same in 12: each is 16 times as large, and some more.
COLOURS = draw_picture(HEIGHT, WIDTH)
GREYS = COLOURS[..., 1]


def widen(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    return np.rint(pixels * (4095 / 255)).astype(np.uint16)


def grey_tiff(kind: str, mode: str) -> bytes:
    content = widen(GREYS).astype(kind).tobytes()
    return save(Image.frombytes(mode, (WIDTH, HEIGHT), content), "TIFF")


def colour_png(channels: int, interlaced: int = 0) -> bytes:
    pixels = widen(np.dstack([COLOURS, GREYS]))[..., :channels].astype(">u2")
    rows = adam7(pixels) if interlaced else lines(pixels)
    return png(WIDTH, HEIGHT, rows, 16, {3: 2, 4: 6}[channels], interlaced)


def colour_tiff(compression: int = 1, **others: int | tuple[int, ...]) -> bytes:
    body = widen(COLOURS).astype("<u2").tobytes()
    if others:  # one channel after the other
        body = np.moveaxis(widen(COLOURS), -1, 0).astype("<u2").tobytes()
    body = zlib.compress(body) if compression == 8 else body
    tags = {256: WIDTH, 257: HEIGHT, 258: (16, 16, 16), 259: compression, 262: 2, 277: 3}
    plane = WIDTH * HEIGHT * 2
    places = (8, 8 + plane, 8 + 2 * plane) if others else 8
    lengths = (plane,) * 3 if others else len(body)
    planes: dict[int, int | tuple[int, ...]] = {284: 2} if others else {}
    return tiff({**tags, 273: places, 278: HEIGHT, 279: lengths, **planes}, body)


WIDE = {
    "grey PNG": (encode(widen(GREYS), "PNG"), GREYS),
    "grey TIFF": (grey_tiff("<u2", "I;16"), GREYS),
    "grey TIFF, big endian": (grey_tiff(">u2", "I;16B"), GREYS),
    "grey TIFF of 32 bits": (grey_tiff("<i4", "I"), GREYS),
    "RGB PNG": (colour_png(3), COLOURS),
    "interlaced RGB PNG": (colour_png(3, interlaced=1), COLOURS),
    "RGBA PNG": (colour_png(4), COLOURS),
    "RGB TIFF": (colour_tiff(), COLOURS),
    "RGB TIFF, deflated": (colour_tiff(8), COLOURS),
    "RGB TIFF, channel after channel": (colour_tiff(planes=2), COLOURS),
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("large", [False, True])
def test_twelve_bits_are_those_of_eight_but_for_rounding(
    name: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(bands, "_BAND_PIXELS", 1000)
    content, pixels = WIDE[name]
    expected = read_picture(encode(pixels, "PNG"), SIZE).pixels.astype(int)
    picture = read_picture(content, SIZE, TWELVE_BITS)
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert np.abs(picture.pixels - expected).max() <= 1
    # Without the range only the upper bits count.
    assert read_picture(content, SIZE).pixels.max() <= 15
    values = np.sort(widen(pixels), axis=None)
    assert read_reach(content) == values[-1 - values.size // 1000]


@pytest.mark.parametrize("orientation", STORED)
def test_a_wide_image_is_turned_as_any_other(orientation: int) -> None:
    stored = STORED[orientation](widen(GREYS))
    for kind in ("PNG", "TIFF"):
        picture = read_picture(
            encode(np.ascontiguousarray(stored), kind, exif=oriented(orientation)),
            SIZE,
            TWELVE_BITS,
        )
        expected = read_picture(encode(widen(GREYS), kind), SIZE, TWELVE_BITS)
        assert np.array_equal(picture.pixels, expected.pixels)
        assert picture.orientation == orientation


def test_a_wide_coloured_image_tells_its_orientation_too() -> None:
    content, _ = WIDE["RGB TIFF"]
    tags = {256: WIDTH, 257: HEIGHT, 258: (16, 16, 16), 259: 1, 262: 2, 274: 6, 277: 3}
    turned = tiff({**tags, 273: 8, 278: HEIGHT, 279: WIDTH * HEIGHT * 6}, content[8:])
    picture = read_picture(turned, SIZE, TWELVE_BITS)
    assert (picture.width, picture.height, picture.orientation) == (HEIGHT, WIDTH, 6)
    expected = read_picture(encode(np.rot90(COLOURS, -1).copy(), "PNG"), SIZE)
    assert np.abs(picture.pixels.astype(int) - expected.pixels).max() <= 1


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("value_range", [None, (65535 - 4095, 65535)])
@pytest.mark.parametrize("compression", [1, 8])
def test_where_white_is_zero_16_bits_look_like_8(
    compression: int,
    value_range: tuple[int, int] | None,
    large: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if large:
        monkeypatch.setattr(bands, "_BAND_PIXELS", 1000)

    def store(values: npt.NDArray[np.generic], bits: int) -> bytes:
        body = zlib.compress(values.tobytes()) if compression == 8 else values.tobytes()
        tags = {256: WIDTH, 257: HEIGHT, 258: bits, 259: compression, 262: 0, 277: 1}
        return tiff({**tags, 273: 8, 278: HEIGHT, 279: len(body)}, body)

    stored = GREYS.astype("<u2") * 257 if value_range is None else widen(GREYS).astype("<u2")
    content = store(stored, 16)
    picture = read_picture(content, SIZE, value_range)
    expected = read_picture(store(GREYS, 8), SIZE).pixels.astype(int)
    assert np.abs(picture.pixels - expected).max() <= 1
    dark = np.sort(65535 - stored.astype(int), axis=None)
    assert read_reach(content) == dark[-1 - dark.size // 1000]
    # An image of the user's is left as it is.
    image = Image.open(io.BytesIO(content))
    for _ in range(2):
        assert np.array_equal(read_picture(image, SIZE, value_range).pixels, picture.pixels)


def test_values_beyond_the_range_are_black_and_white() -> None:
    values = np.array([[0, 100, 300, 600, 65535]], dtype=np.uint16).repeat(5, axis=0)
    picture = read_picture(encode(values, "PNG"), 5, (100, 600))
    assert picture.pixels[0, :, 0].tolist() == [0, 0, 102, 255, 255]


def test_a_dead_pixel_does_not_make_the_others_dark() -> None:
    values = np.full((40, 50), 3000, dtype=np.uint16)
    values[7, 9] = 65535
    assert read_reach(encode(values, "PNG")) == 3000
    values[7] = 65535
    assert read_reach(encode(values, "PNG")) == 65535


def test_a_bitmap_of_16_bits_a_pixel_is_not_wide() -> None:
    red = b"\x00\xf8" * 8
    head = struct.pack("<2sIII", b"BM", 70 + 16, 0, 70)
    core = struct.pack("<IiiHHIIiiII", 56, 4, 2, 1, 16, 3, 16, 0, 0, 0, 0)
    bitmap = head + core + struct.pack("<IIII", 0xF800, 0x07E0, 0x001F, 0) + red
    for value_range in (None, TWELVE_BITS):
        picture = read_picture(bitmap, 4, value_range)
        assert picture.pixels[0, 0].tolist() == [255, 0, 0]


def test_the_range_is_none_of_an_image_of_8_bits_nor_of_a_mask() -> None:
    content = encode(COLOURS, "PNG")
    assert np.array_equal(
        read_picture(content, SIZE, TWELVE_BITS).pixels, read_picture(content, SIZE).pixels
    )
    assert read_reach(content) is None
    assert read_reach(encode(COLOURS, "JPEG")) is None
    mask = np.array([[0, 1, 300, 4095]], dtype=np.uint16)
    assert read_mask(encode(mask, "PNG")).values.tolist() == mask.tolist()


def test_what_has_lost_its_lower_bits_is_refused_where_they_count() -> None:
    pixels = widen(COLOURS[..., :2]).astype(">u2")
    content = png(WIDTH, HEIGHT, lines(pixels), 16, 4)
    with pytest.raises(DecodeError, match=r"grey and alpha of 16 bits.* save it as"):
        read_picture(content, SIZE, TWELVE_BITS)
    assert read_picture(content, SIZE).width == WIDTH


def test_of_pillow_s_images_grey_ones_are_scaled_and_colours_without_lower_bits_refused() -> None:
    content, _ = WIDE["grey PNG"]
    picture = read_picture(Image.open(io.BytesIO(content)), SIZE, TWELVE_BITS)
    assert np.array_equal(picture.pixels, read_picture(content, SIZE, TWELVE_BITS).pixels)
    image = Image.open(io.BytesIO(WIDE["RGB PNG"][0]))
    with pytest.raises(DecodeError, match="path or bytes"):
        read_picture(image, SIZE, TWELVE_BITS)
    assert read_picture(image, SIZE).width == WIDTH


@pytest.mark.parametrize(
    ("highest", "chosen"),
    [
        ([], None),
        ([7], (0, 255)),
        ([255, 256], (0, 511)),
        ([3000, 12], (0, 4095)),
        ([4095], (0, 4095)),
        ([65535], (0, 65535)),
    ],
)
def test_the_range_is_of_as_few_bits_as_hold_the_greatest_value(
    highest: list[int], chosen: tuple[int, int] | None
) -> None:
    assert choose_range(highest) == chosen

"""Decoding: whatever the bytes are, upright pixels come out, or one line that says why not."""

import io
import pickle
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.pixels import bands
from segray.pixels.decoding import FORMATS, DecodeError, read_picture
from segray.pixels.framing import Frame
from segray.pixels.limits import MAX_MASK, MAX_MEMORY, MEMORY
from segray.pixels.mask_files import read_mask
from segray.pixels.opening import open_image
from segray.pixels.sample import draw_sample
from segray.pixels.thumbnails import read_small
from tests.corpus import HEIGHT, STORED, WIDTH, Sample, corpus, oriented, quarters, save
from tests.crafted import png, tiff, webp
from tests.support import draw_picture, encode

SIZE = 32
CORPUS = corpus()


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(DecodeError) as error:
        read()
    message = str(error.value)
    assert message
    assert "\n" not in message
    assert len(message) < 400
    return message


def read_mask_values(data: bytes, coloured: bool = False) -> npt.NDArray[Any]:
    return read_mask(data, coloured).values


def read_colours(data: bytes) -> npt.NDArray[Any]:
    return read_mask_values(data, coloured=True)


def verdict(sample: Sample) -> str:
    """What became of a sample, ``as expected`` or what else."""
    expected = sample.verdict
    try:
        picture = read_picture(sample.content, SIZE)
    except DecodeError as error:
        reason = str(error)
        plain = "\n" not in reason and len(reason) < 400
        fits = error.kind == expected.error and expected.message in reason and plain
        return "as expected" if fits else f"{error.kind}: {reason}"
    if (picture.width, picture.height) != expected.size:
        return f"{picture.width} x {picture.height}"
    quarter = SIZE // 4
    colours = picture.pixels[quarter :: SIZE // 2, quarter :: SIZE // 2].reshape(4, 3).astype(int)
    if expected.colours and np.abs(colours - np.array(expected.colours)).max() > 30:
        return str(colours.tolist())
    return "as expected"


@pytest.mark.parametrize("name", CORPUS)
def test_every_file_of_the_corpus_meets_its_verdict(name: str) -> None:
    assert verdict(CORPUS[name]) == "as expected"


@pytest.mark.parametrize("coloured", [False, True])
def test_as_a_mask_every_file_of_the_corpus_is_read_or_refused(coloured: bool) -> None:
    for name, sample in CORPUS.items():
        try:
            values = read_mask_values(sample.content, coloured)
        except DecodeError:
            continue
        assert values.shape == sample.verdict.size[::-1], name


def test_several_threads_decode_at_a_time() -> None:
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(verdict, [*CORPUS.values()] * 2))
    assert set(verdicts) == {"as expected"}


def test_decoding_silences_no_warning_of_another_thread() -> None:
    loud = [CORPUS["orientation/endless.jpg"], CORPUS["tiff/long_tag.tiff"]]
    heard = 0
    with ThreadPoolExecutor(4) as threads:
        decoded = [threads.submit(verdict, sample) for sample in loud * 300]
        while not all(future.done() for future in decoded):
            with pytest.raises(UserWarning, match="of this thread"):
                warnings.warn("of this thread", stacklevel=1)
            heard += 1
    assert heard
    assert {future.result() for future in decoded} == {"as expected"}
    with pytest.raises(UserWarning, match="afterwards"):
        warnings.warn("afterwards", stacklevel=1)


def test_no_file_of_the_corpus_takes_long() -> None:
    durations = {}
    for name, sample in CORPUS.items():
        started = time.thread_time()
        verdict(sample)
        durations[name] = time.thread_time() - started
    print("the slowest:", sorted(durations.items(), key=lambda item: -item[1])[:5])
    assert max(durations.values()) < 1


# A process's peak above what it had before decoding, in MiB. Not getrusage's: that begins with
# the peak of the process that started this one.
MEASURE = """
import re, sys
from pathlib import Path
from segray.pixels.decoding import DecodeError, read_picture
from segray.pixels.framing import Frame

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

contents = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
before = peak()
for content in contents:
    try:
        read_picture(content, Frame(128, 128, sys.argv[2]))
    except DecodeError:
        pass
print((peak() - before) / 1024)
"""


def peak_memory(folder: Path, contents: list[bytes], fit: str = "squash") -> float:
    for number, content in enumerate(contents):
        (folder / str(number)).write_bytes(content)
    command = [sys.executable, "-c", MEASURE, str(folder), fit]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_the_corpus_takes_little_memory(tmp_path: Path) -> None:
    peak = peak_memory(tmp_path, [sample.content for sample in CORPUS.values()])
    print(f"the corpus: {peak:.0f} MiB")
    assert peak < 100


SIDE = 6000
PLAIN = Image.new("RGB", (SIDE, SIDE), (90, 120, 40))


@pytest.mark.parametrize(
    ("make", "bytes_per_pixel"),
    [
        (lambda: save(PLAIN, "JPEG"), 0.1),
        (lambda: save(PLAIN, "JPEG", progressive=True), 6.1),
        (lambda: save(PLAIN.convert("CMYK"), "JPEG", progressive=True), 8.1),
        (lambda: save(PLAIN.convert("RGBA"), "PNG"), 4),
        (lambda: save(PLAIN.convert("RGBA"), "PNG", exif=oriented(6)), 8),
        (lambda: save(PLAIN.quantize(2), "PNG"), 1),
        (lambda: save(Image.new("I;16", (SIDE, SIDE), 999), "PNG"), 4),
        (lambda: save(PLAIN, "WEBP", lossless=True, method=0), 16),
        (lambda: save(PLAIN, "TIFF", compression="tiff_adobe_deflate", exif=oriented(6)), 8),
        (lambda: save(PLAIN.quantize(2), "GIF"), 1),
        (lambda: png(1, SIDE * SIDE, b"\0\0" * SIDE * SIDE, colour=0), 9),
    ],
    ids=[
        "jpeg",
        "progressive",
        "cmyk",
        "rgba",
        "turned",
        "palette",
        "16 bits",
        "webp",
        "tiff",
        "gif",
        "thin",
    ],
)
def test_a_large_image_takes_the_memory_that_is_planned_for_it(
    make: Callable[[], bytes], bytes_per_pixel: float, tmp_path: Path
) -> None:
    peak = peak_memory(tmp_path, [make()])
    planned = bytes_per_pixel * SIDE * SIDE / 2**20
    print(f"planned {planned:.0f} MiB, taken {peak:.0f} MiB")
    assert peak < planned + 80


@pytest.mark.parametrize(
    ("make", "bytes_per_pixel"),
    [
        (lambda: save(PLAIN, "JPEG"), 7),
        (lambda: save(PLAIN, "JPEG", exif=oriented(6)), 11),
        (lambda: save(PLAIN.convert("L"), "JPEG"), 8),
        (lambda: save(PLAIN, "PNG"), 7),
        (lambda: save(PLAIN, "PNG", exif=oriented(6)), 11),
        (lambda: save(PLAIN, "WEBP", lossless=True, method=0), 19),
        (lambda: save(PLAIN, "WEBP", lossless=True, method=0, exif=oriented(6)), 23),
    ],
    ids=["jpeg", "turned jpeg", "grey jpeg", "png", "turned png", "webp", "turned webp"],
)
def test_an_image_that_is_not_made_small_takes_the_memory_that_is_planned_for_it(
    make: Callable[[], bytes], bytes_per_pixel: float, tmp_path: Path
) -> None:
    peak = peak_memory(tmp_path, [make()], "tile")
    planned = bytes_per_pixel * SIDE * SIDE / 2**20
    print(f"planned {planned:.0f} MiB, taken {peak:.0f} MiB")
    assert peak < planned + 80


def test_the_limit_of_pixels_can_be_raised() -> None:
    large = encode(np.full((9500, 9500), 7, np.uint8), "JPEG")
    with pytest.raises(DecodeError, match="9500 x 9500 pixels"):
        read_picture(large, SIZE)
    with pytest.raises(DecodeError, match="9500 x 9500 pixels"):
        read_picture(large, SIZE, max_pixels=9500**2 - 1)
    picture = read_picture(large, SIZE, max_pixels=9500**2)
    assert (picture.width, picture.height) == (9500, 9500)
    assert (picture.pixels == 7).all()


def test_the_limit_of_pixels_can_be_raised_beyond_that_of_pillow() -> None:
    """Which refuses over 178,956,970 pixels by itself."""
    side = 13_400
    large = save(Image.new("1", (side, side), 1), "TIFF", compression="group4")
    with pytest.raises(DecodeError, match="13400 x 13400 pixels, over the limit of 89478485"):
        read_picture(large, SIZE)
    assert (read_picture(large, SIZE, max_pixels=MAX_MASK).pixels == 255).all()
    assert (read_small(large, side, side, SIZE, None) == 255).all()
    assert open_image(webp(side, side, lossless=True), MAX_MASK).size == (side, side)
    with pytest.raises(DecodeError, match="190000000"):
        open_image(webp(60_000, 60_000), 190_000_000)


def test_images_that_together_take_too_much_memory_wait_for_each_other() -> None:
    sample = CORPUS["mode/rgb.png"]
    with MEMORY.reserved(MAX_MEMORY):
        thread = threading.Thread(target=read_picture, args=(sample.content, SIZE))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "I;16", "I;16B", "LA"])
@pytest.mark.parametrize("size", [(150, 90), (90, 150)])
def test_a_large_image_is_converted_in_bands_to_the_same_pixels(
    mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    grain = np.random.default_rng(0).integers(0, 65536, (size[1], size[0]), dtype=np.uint16)
    if mode.startswith("I"):
        kind = ">u2" if mode.endswith("B") else "<u2"
        image = Image.frombytes(mode, size, grain.astype(kind).tobytes())
    else:
        image = Image.fromarray((grain >> 8).astype(np.uint8)).convert("RGB").convert(mode)
    whole = read_picture(image, SIZE).pixels
    monkeypatch.setattr(bands, "_BAND_PIXELS", 1000)
    assert np.abs(read_picture(image, SIZE).pixels.astype(int) - whole).max() <= 1


def test_a_picture_need_not_be_a_square() -> None:
    data = encode(STORED[6](quarters()), "PNG", exif=oriented(6))
    picture = read_picture(data, Frame(20, 30))
    assert picture.pixels.shape == (20, 30, 3)
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert picture.pixels[5, 7].tolist() == [255, 0, 0]
    assert picture.pixels[5, 22].tolist() == [0, 255, 0]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(40, 90), (900, 400)])
def test_a_letterboxed_picture_is_the_scaled_one_between_bars_of_grey(
    size: tuple[int, int], kind: str, orientation: int
) -> None:
    data = encode(draw_picture(*size), kind, exif=oriented(orientation))
    frame = Frame(32, 64, "letterbox")
    height, width = size if orientation == 1 else size[::-1]
    picture = read_picture(data, frame)
    box = picture.box
    assert (picture.width, picture.height) == (width, height)
    assert (box.width < 64) if width / height < 2 else (box.height < 32)
    assert abs(box.width / box.height - width / height) < 0.08 * width / height
    # A JPEG may be decoded at another reduced scale for a smaller frame.
    squashed = read_picture(data, Frame(box.height, box.width)).pixels.astype(int)
    assert np.abs(picture.content - squashed).max() <= (2 if kind == "JPEG" else 0)
    around = np.ones(frame.shape, bool)
    around[box.slices] = False
    assert set(np.unique(picture.pixels[around])) == {128}


def test_a_refusal_keeps_its_kind_between_processes() -> None:
    with pytest.raises(DecodeError) as caught:
        read_picture(b"", SIZE)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.kind) == ("the file is empty", "empty")


def assert_shows_the_quadrants(pixels: npt.NDArray[np.uint8], tolerance: int = 60) -> None:
    quarter = SIZE // 4
    corners = pixels[quarter :: SIZE // 2, quarter :: SIZE // 2].astype(int)
    expected = [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]]
    assert np.abs(corners - np.array(expected)).max() < tolerance


@pytest.mark.parametrize("kind", FORMATS)
def test_content_and_nothing_else_tells_the_format(kind: str) -> None:
    picture = read_picture(encode(quarters(), kind), SIZE)
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert picture.pixels.shape == (SIZE, SIZE, 3)
    assert picture.pixels.dtype == np.uint8
    assert_shows_the_quadrants(picture.pixels)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_every_exif_orientation_gives_the_upright_picture(
    kind: str, options: dict[str, Any], orientation: int
) -> None:
    stored = STORED[orientation](quarters())
    data = encode(stored, kind, exif=oriented(orientation), **options)
    for source in (data, Image.open(io.BytesIO(data))):
        picture = read_picture(source, SIZE)
        assert (picture.width, picture.height) == (WIDTH, HEIGHT)
        assert_shows_the_quadrants(picture.pixels)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_exif_orientation_gives_the_upright_mask(
    kind: str, orientation: int, dtype: npt.DTypeLike
) -> None:
    mask = np.arange(6, dtype=dtype).reshape(2, 3)
    stored = STORED[orientation](mask)
    values = read_mask_values(encode(stored, kind, exif=oriented(orientation)))
    assert values.tolist() == mask.tolist()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_a_lossless_image_has_the_same_pixels_however_it_is_stored(
    kind: str, options: dict[str, Any], orientation: int
) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (203, 331, 3), dtype=np.uint8)
    expected = read_picture(encode(upright, kind, **options), SIZE)
    stored = encode(STORED[orientation](upright), kind, exif=oriented(orientation), **options)
    picture = read_picture(stored, SIZE)
    assert np.array_equal(picture.pixels, expected.pixels)
    assert (picture.width, picture.height, picture.orientation) == (331, 203, orientation)
    assert expected.orientation == 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_mask_tells_the_orientation_of_its_file(kind: str) -> None:
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert read_mask(encode(mask, kind, exif=oriented(7))).orientation == 7
    assert read_mask(encode(mask, kind)).orientation == 1


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    picture = read_picture(encode(quarters(), "PNG", exif=oriented(orientation)), SIZE)
    assert_shows_the_quadrants(picture.pixels)


def test_damaged_exif_leaves_the_picture_alone() -> None:
    data = encode(quarters(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert_shows_the_quadrants(read_picture(data, SIZE).pixels)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("RGBA", "TIFF"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "TIFF"),
    ],
)
def test_every_colour_mode_gives_the_same_colours(mode: str, kind: str) -> None:
    image = Image.fromarray(quarters()).convert(mode)
    assert_shows_the_quadrants(read_picture(save(image, kind), SIZE).pixels)
    assert_shows_the_quadrants(read_picture(image, SIZE).pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "PA", "I;16", "I;16B", "I"])
def test_every_grey_mode_gives_the_same_greys(mode: str) -> None:
    grey = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    grey[:, WIDTH // 2 :] = 255
    image = Image.fromarray(grey)
    if mode.startswith("I"):
        kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
        image = Image.frombytes(mode, image.size, (grey * np.int64(257)).astype(kind).tobytes())
    elif mode == "PA":
        image = image.convert("P").convert("PA")
    else:
        image = image.convert(mode)
    sources: list[bytes | Image.Image] = [image]
    if mode != "PA":  # no file format holds it
        sources.append(save(image, "TIFF" if mode in ("I", "I;16B") else "PNG"))
    for source in sources:
        pixels = read_picture(source, SIZE).pixels
        assert (pixels[:, : SIZE // 2 - 2] == 0).all()
        assert (pixels[:, SIZE // 2 + 2 :] == 255).all()


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    pixels = read_picture(encode(np.full((8, 8), 0x8000, dtype=np.uint16), "PNG"), 4).pixels
    assert (pixels == 0x80).all()


@pytest.mark.parametrize("transparency", [0, b"\x00\x80\xff\x40"])
def test_transparency_of_a_palette_is_dropped_without_a_warning(transparency: int | bytes) -> None:
    image = Image.fromarray(quarters()).quantize(4)
    data = save(image, "PNG", transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_shows_the_quadrants(read_picture(data, SIZE).pixels)


def test_hidden_colours_below_full_transparency_come_out() -> None:
    rgba = np.dstack([quarters(), np.zeros((HEIGHT, WIDTH), dtype=np.uint8)])
    assert_shows_the_quadrants(read_picture(encode(rgba, "PNG"), SIZE).pixels)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_counts(kind: str) -> None:
    first, second = (Image.new("RGB", (20, 10), colour) for colour in ("red", "blue"))
    data = save(first, kind, save_all=True, append_images=[second])
    pixels = read_picture(data, 4).pixels
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() < 16


@pytest.mark.parametrize("size", [1, 7, 224])
def test_the_smallest_picture_fills_the_square(size: int) -> None:
    picture = read_picture(encode(np.array([[[10, 20, 30]]], dtype=np.uint8), "PNG"), size)
    assert (picture.pixels == (10, 20, 30)).all()
    assert picture.pixels.shape == (size, size, 3)
    assert (picture.width, picture.height) == (1, 1)


def test_a_small_jpeg_gives_the_same_pixels_from_bytes_and_from_pillow() -> None:
    image, _ = draw_sample(0)
    data = encode(image, "JPEG", quality=90)
    from_bytes = read_picture(data, 64)
    from_pillow = read_picture(Image.open(io.BytesIO(data)), 64)
    assert np.array_equal(from_bytes.pixels, from_pillow.pixels)
    assert (from_bytes.width, from_bytes.height) == (from_pillow.width, from_pillow.height)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_at_reduced_scale_is_close_to_the_full_decoding(orientation: int) -> None:
    image = Image.fromarray(draw_sample(0)[0]).resize((1801, 1353), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 20, (1353, 1801, 1))
    pixels = (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)
    data = encode(pixels, "JPEG", quality=92, exif=oriented(orientation))
    reduced = read_picture(data, 64)
    full = read_picture(Image.open(io.BytesIO(data)), 64)
    assert (reduced.width, reduced.height) == (full.width, full.height)
    assert {reduced.width, reduced.height} == {1801, 1353}
    difference = np.abs(reduced.pixels.astype(int) - full.pixels)
    # Of 255 levels; with the codec alone doing the scaling, the mean is about 1.
    assert difference.mean() < 0.7
    assert np.quantile(difference, 0.99) <= 6


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(kind: str, share: float) -> None:
    grain = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    data = encode(grain, kind)
    truncated = data[: int(share * len(data))]
    refusal(lambda: read_picture(truncated, SIZE))
    refusal(lambda: read_mask_values(truncated))
    refusal(lambda: read_colours(truncated))


@pytest.mark.parametrize(
    "read",
    [
        lambda data: read_picture(data, SIZE),
        read_mask_values,
        read_colours,
    ],
)
@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "empty"),
        (b"not a picture but a line of text\n" * 20, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (save(Image.new("RGB", (9, 9)), "PPM"), "JPEG, PNG, WEBP, TIFF, BMP, GIF"),
        (png(9500, 9500, bytes(100)), "9500 x 9500 pixels, over the limit"),
        (png(100_000, 100_000, bytes(100)), "100000 x 100000 pixels"),
        (png(0, 5, bytes(100)), "its header makes no sense"),
    ],
    ids=["empty", "text", "svg", "ppm", "over the limit", "far over the limit", "no pixels"],
)
def test_what_is_no_image_is_refused_with_the_reason(
    read: Callable[[bytes], object], data: bytes, named: str
) -> None:
    assert named in refusal(lambda: read(data))


def test_floating_point_pixels_are_refused() -> None:
    data = encode(np.ones((4, 4), dtype=np.float32), "TIFF")
    assert "floating-point" in refusal(lambda: read_picture(data, SIZE))
    assert "floating-point" in refusal(lambda: read_mask_values(data))
    assert "floating-point" in refusal(lambda: read_colours(data))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_a_grey_mask_gives_its_values(kind: str) -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    values = read_mask_values(encode(mask, kind))
    assert values.dtype == np.uint8
    assert np.array_equal(values, mask)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_a_palette_mask_gives_its_indices_and_not_its_colours(kind: str) -> None:
    mask = np.array([[0, 1, 2], [3, 2, 1]], dtype=np.uint8)
    image = Image.fromarray(mask).convert("P")
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    assert read_mask_values(save(image, kind)).tolist() == mask.tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_sixteen_bit_mask_gives_its_values(kind: str) -> None:
    mask = np.array([[0, 1, 256], [257, 40000, 65535]], dtype=np.uint16)
    values = read_mask_values(encode(mask, kind))
    assert values.dtype == np.uint16
    assert values.tolist() == mask.tolist()


def test_a_big_endian_sixteen_bit_mask_gives_its_values() -> None:
    mask = np.array([[0, 1, 256], [257, 40000, 65535]])
    image = Image.frombytes("I;16B", (3, 2), mask.astype(">u2").tobytes())
    assert read_mask_values(save(image, "TIFF")).tolist() == mask.tolist()


@pytest.mark.parametrize("value", [-1, 65536])
def test_a_mask_value_that_no_class_can_have_is_refused(value: int) -> None:
    data = encode(np.array([[0, value]], dtype=np.int32), "TIFF")
    assert "0 to 65535" in refusal(lambda: read_mask_values(data))


def test_a_one_bit_mask_gives_zeros_and_ones() -> None:
    mask = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.uint8)
    data = save(Image.fromarray(mask * 255).convert("1"), "PNG")
    values = read_mask_values(data)
    assert values.dtype == np.uint8
    assert values.tolist() == mask.tolist()


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_a_mask_whose_white_is_zero_gives_the_stored_values(bits: int, compression: int) -> None:
    stored = np.array([[0, 1, 2, 3], [3, 3, 1, 0]])
    flat = "".join(f"{value:0{bits}b}" for value in stored.ravel())
    body = int(flat, 2).to_bytes(len(flat) // 8, "big")
    body = stored.astype("<u2").tobytes() if bits == 16 else body
    body = zlib.compress(body) if compression == 8 else body
    tags = {256: 4, 257: 2, 258: bits, 259: compression, 262: 0, 273: 8, 277: 1, 278: 2}
    values = read_mask_values(tiff({**tags, 279: len(body)}, body))
    assert values.tolist() == stored.tolist()


@pytest.mark.parametrize(("mode", "channels"), [("RGB", "R+G+B"), ("RGBA", "A"), ("LA", "L+A")])
def test_a_mask_with_colour_channels_is_refused(mode: str, channels: str) -> None:
    data = save(Image.new(mode, (5, 4)), "PNG")
    message = refusal(lambda: read_mask_values(data))
    assert channels in message
    assert "--classes name=#rrggbb" in message
    assert "save it as a grey or palette image" in message


COLOURS = [[0x804080, 0x87CEEB, 0x000001], [0xFF0000, 0x00FF00, 0x804080]]
PIXELS = np.array(
    [
        [(128, 64, 128), (135, 206, 235), (0, 0, 1)],
        [(255, 0, 0), (0, 255, 0), (128, 64, 128)],
    ],
    dtype=np.uint8,
)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": True, "exif": oriented(1)}),
    ],
)
def test_a_colour_mask_gives_its_colours(kind: str, options: dict[str, Any]) -> None:
    colours = read_colours(encode(PIXELS, kind, **options))
    assert colours.dtype == np.uint32
    assert colours.tolist() == COLOURS


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP"])
def test_a_palette_mask_gives_its_colours_where_they_are_wanted(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2], [3, 4, 0]], dtype=np.uint8)).convert("P")
    image.putpalette([128, 64, 128, 135, 206, 235, 0, 0, 1, 255, 0, 0, 0, 255, 0])
    assert read_colours(save(image, kind)).tolist() == COLOURS


@pytest.mark.parametrize("transparency", [0, b"\x00\x80\xff\x40"])
def test_a_transparent_palette_keeps_its_colours(transparency: int | bytes) -> None:
    image = Image.fromarray(PIXELS).quantize(5)
    data = save(image, "PNG", transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_colours(data).tolist() == COLOURS


@pytest.mark.parametrize("opacity", [0, 100, 255])
def test_alpha_does_not_change_a_masks_colours(opacity: int) -> None:
    alpha = np.full((2, 3, 1), opacity, dtype=np.uint8)
    assert read_colours(encode(np.dstack([PIXELS, alpha]), "PNG")).tolist() == COLOURS


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_is_a_colour_as_well(mode: str) -> None:
    image = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert(mode)
    assert read_colours(save(image, "PNG")).tolist() == [[0x000000, 0xFFFFFF]]


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_every_exif_orientation_gives_the_upright_colours(kind: str, orientation: int) -> None:
    stored = STORED[orientation](PIXELS)
    data = encode(stored, kind, exif=oriented(orientation))
    assert read_colours(data).tolist() == COLOURS


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}, "JPEG"),
        ("WEBP", {"quality": 100}, "lossy WEBP"),
        ("WEBP", {"exif": oriented(1)}, "lossy WEBP"),
        ("WEBP", {"save_all": True, "append_images": [Image.new("RGB", (3, 2))]}, "lossy WEBP"),
        ("TIFF", {"compression": "jpeg"}, "TIFF with JPEG compression"),
    ],
)
def test_a_coding_that_changes_colours_is_refused(
    kind: str, options: dict[str, Any], named: str
) -> None:
    data = encode(PIXELS, kind, **options)
    message = refusal(lambda: read_colours(data))
    assert f"is a {named}, which does not keep the exact values or colours" in message
    assert "save it as PNG" in message


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 95}), ("TIFF", {"compression": "jpeg"})]
)
def test_a_coding_that_changes_numbers_is_refused(kind: str, options: dict[str, Any]) -> None:
    """It would be read with some pixels of another class, and nobody would notice."""
    numbers = np.random.default_rng(0).integers(1, 4, (16, 16), dtype=np.uint8)
    data = encode(numbers, kind, **options)
    message = refusal(lambda: read_mask_values(data))
    assert "which does not keep the exact values or colours that stand for the classes" in message
    assert read_mask_values(encode(numbers, "PNG")).tolist() == numbers.tolist()


@pytest.mark.parametrize("mode", ["I;16", "CMYK"])
def test_pixels_that_are_no_eight_bit_colours_are_refused(mode: str) -> None:
    data = save(Image.new(mode, (5, 4)), "TIFF")
    assert f"pixels of the kind {mode}" in refusal(lambda: read_colours(data))


def test_damaged_bytes_raise_nothing_but_a_decode_error() -> None:
    rng = np.random.default_rng(0)
    scene = Image.fromarray(quarters())
    intact = [save(scene.quantize(16) if kind == "GIF" else scene, kind) for kind in FORMATS]
    intact += [
        save(scene.convert("L"), "PNG"),
        save(scene, "TIFF", compression="tiff_lzw"),
        save(scene, "JPEG", exif=oriented(6)),
    ]
    read, reasons = 0, []
    for attempt in range(1200):
        data = bytearray(intact[attempt % len(intact)])
        # Half of the damage goes to the headers, where most of the decisions are.
        reach = len(data) if attempt % 2 else min(len(data), 300)
        for place in rng.integers(reach, size=rng.integers(1, 8)):
            data[place] ^= 1 << rng.integers(8)
        for decode in (lambda data: read_picture(data, 8), read_mask_values, read_colours):
            try:
                decode(bytes(data))
                read += 1
            except DecodeError as error:
                reasons.append(str(error))
    assert read > 100
    assert len(reasons) > 100
    assert not [reason for reason in reasons if "\n" in reason or not reason]


def test_random_bytes_after_a_good_beginning_raise_nothing_but_a_decode_error() -> None:
    rng = np.random.default_rng(0)
    beginnings = [b""] + [encode(quarters(), kind)[:24] for kind in FORMATS]
    for attempt in range(300):
        data = beginnings[attempt % len(beginnings)] + rng.bytes(int(rng.integers(1, 500)))
        refusal(lambda data=data: read_picture(data, SIZE))
        refusal(lambda data=data: read_mask_values(data))
        refusal(lambda data=data: read_colours(data))


GREY = {
    1: (bytes([0b0110_0000]), [0, 1, 1, 0]),
    2: (bytes([0b00_01_10_11]), [0, 1, 2, 3]),
    4: (bytes([0x12, 0x3F]), [1, 2, 3, 15]),
    8: (bytes([1, 2, 26, 255]), [1, 2, 26, 255]),
}


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", list(GREY))
def test_grey_masks_keep_the_values_that_are_stored(form: str, bits: int) -> None:
    """Pillow stretches few bits to 0..255; what the annotator stored is what counts."""
    row, values = GREY[bits]
    if form == "PNG":
        data = png(4, 1, b"\0" + row, bits=bits, colour=0)
    else:
        shape = {256: 4, 257: 1, 258: bits, 259: 1, 262: 1}
        data = tiff(shape | {273: 8, 277: 1, 278: 1, 279: len(row)}, row)
    assert read_mask_values(data).tolist() == [values]


def test_a_range_of_values_does_not_change_what_a_scale_may_do() -> None:
    wide = png(40, 40, (b"\0" + bytes(6 * 40)) * 40, bits=16, colour=2)
    read_picture(wide, Frame(32, 32, "tile"), (0, 4095))
    for frame in (Frame(32, 32, "tile", 0.01), Frame(32, 32, "tile", 8000.0)):
        refusals = {
            refusal(lambda limits=limits, frame=frame: read_picture(wide, frame, limits))
            for limits in (None, (0, 4095))
        }
        assert len(refusals) == 1


@pytest.mark.parametrize("read", [lambda source: read_picture(source, 8), read_mask])
def test_signed_bytes_are_refused(read: Callable[[bytes], object]) -> None:
    """Pillow would read -128 as 128."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(buffer, "TIFF", tiffinfo={339: 2})
    with pytest.raises(DecodeError, match="signed 8-bit"):
        read(buffer.getvalue())

"""Masks: interpolation and counts against a slow reference, and PNG files that come back equal."""

import io
import tracemalloc
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.pixels.labels import Labels
from segray.pixels.mask_files import read_mask
from segray.pixels.masks import decode_mask, encode_mask, encode_values, segment_logits

# Where the two best logits are nearer to each other than this, either may win.
CLOSE = 1e-9


def random_logits(
    seed: int, height: int, width: int, classes: int, scale: float = 4
) -> npt.NDArray[np.float32]:
    """Each value independent of its neighbours: most cells are undecided."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, scale, (height, width, classes)).astype(np.float32)


def smooth_logits(seed: int, size: int, classes: int, blobs: int = 12) -> npt.NDArray[np.float32]:
    """Large areas of each class, as a trained network sees them: about a tenth is undecided."""
    rng = np.random.default_rng(seed)
    planes = [
        Image.fromarray(rng.normal(0, 4, (blobs, blobs)).astype(np.float32)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        for _ in range(classes)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def reference_weights(size: int, target: int) -> npt.NDArray[np.float64]:
    """float64 [target, size]: how much of each logit each pixel takes."""
    centres = (np.arange(target) + 0.5) * size / target - 0.5
    distances = np.abs(centres.clip(0, size - 1)[:, None] - np.arange(size))
    return np.maximum(0.0, 1.0 - distances)


def reference_values(
    logits: npt.NDArray[np.float32], height: int, width: int
) -> npt.NDArray[np.float64]:
    """The logits of every pixel, float64 [height, width, C]."""
    rows = reference_weights(logits.shape[0], height)
    columns = reference_weights(logits.shape[1], width)
    return np.einsum("yh,xw,hwc->yxc", rows, columns, logits.astype(np.float64), optimize=True)


def reference_bands(
    logits: npt.NDArray[np.float32], height: int, width: int
) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Some rows of the image at a time, and the logits of their pixels."""
    rows = reference_weights(logits.shape[0], height)
    columns = reference_weights(logits.shape[1], width)
    wide = np.einsum("xw,hwc->hxc", columns, logits.astype(np.float64), optimize=True)
    step = max(1, (1 << 20) // (width * logits.shape[2]))
    for start in range(0, height, step):
        some = slice(start, start + step)
        yield some, np.tensordot(rows[some], wide, axes=1)


def assert_agrees_with_the_reference(
    logits: npt.NDArray[np.float32], height: int, width: int, tolerance: float
) -> None:
    """Every pixel but for ties, every count, and mean confidences within a tolerance."""
    classes = logits.shape[2]
    mask, statistics = segment_logits(logits, height, width)
    assert mask.shape == (height, width)
    assert mask.dtype == np.uint8

    clear_pixels = 0
    confidence = np.zeros(classes)
    for some, values in reference_bands(logits, height, width):
        band = mask[some]
        best = values.max(axis=-1)
        second = np.partition(values, -2, axis=-1)[..., -2] if classes > 1 else best - 1
        clear = best - second > CLOSE
        assert np.array_equal(band[clear], values.argmax(axis=-1)[clear])
        of_winner = np.take_along_axis(values, band[..., None].astype(int), axis=-1)
        probability = 1 / np.exp(values - of_winner).sum(axis=-1)
        confidence += np.bincount(band.ravel(), probability.ravel(), minlength=classes)
        clear_pixels += int(clear.sum())
    assert clear_pixels >= 0.99 * mask.size

    pixels = np.bincount(mask.ravel(), minlength=classes)
    assert statistics.pixels.dtype == np.int64
    assert statistics.pixels.tolist() == pixels.tolist()
    for found, total, count in zip(statistics.confidences, confidence, pixels, strict=True):
        assert (found is None) == (count == 0)
        if found is not None:
            assert found == pytest.approx(total / count, abs=tolerance)
            assert 1 / classes <= found + 1e-6


def random_size(rng: np.random.Generator, pixels: int) -> tuple[int, int]:
    """Height and width of up to so many pixels, of any aspect."""
    first = int(2 ** rng.uniform(0, np.log2(pixels)))
    second = int(2 ** rng.uniform(0, np.log2(pixels / first)))
    return (first, second) if rng.random() < 0.5 else (second, first)


@pytest.mark.parametrize("seed", range(120))
def test_any_size_and_any_number_of_classes_agree_with_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([1, 2, 3, 4, 8, 20, 64, 255]))
    height, width = random_size(rng, 2000)
    logits = random_logits(seed, height, width, classes, scale=float(rng.choice([0.3, 4, 30])))
    target = random_size(rng, (1 << 14) if classes < 64 else 2000)
    assert_agrees_with_the_reference(logits, *target, tolerance=1e-6)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((1, 1), (1, 1)),
        ((1, 1), (13, 7)),
        ((9, 8), (1, 1)),
        ((1, 16), (16, 1)),
        ((4, 4), (31, 45)),
        ((32, 32), (5, 7)),
        ((16, 16), (16, 40)),
        ((128, 128), (1, 1)),
        ((128, 128), (127, 129)),
        ((128, 128), (128, 64)),
    ],
)
def test_enlarging_and_shrinking_agree_with_the_reference(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    assert_agrees_with_the_reference(random_logits(1, *size, 3), *target, tolerance=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_in_large_images_confidences_are_sampled_and_all_else_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([2, 3, 7, 20]))
    size = int(rng.choice([24, 64, 128]))
    height, width = (int(side) for side in rng.integers(150, 900, 2))
    logits = smooth_logits(seed, size, classes, blobs=size // 8)
    assert_agrees_with_the_reference(logits, height, width, tolerance=3e-4)


@pytest.mark.parametrize(
    ("size", "classes", "target"),
    [
        ((128, 128), 3, (1, 20_000)),
        ((128, 128), 3, (20_000, 1)),
        ((2, 3), 3, (700, 900)),
        ((900, 800), 2, (1100, 850)),
        ((40, 50), 255, (130, 160)),
        ((200, 2000), 3, (90, 2600)),
    ],
    ids=["flat", "tall", "large cells", "small cells", "many classes", "long bands"],
)
def test_working_in_bands_and_blocks_does_not_show(
    size: tuple[int, int], classes: int, target: tuple[int, int]
) -> None:
    assert_agrees_with_the_reference(random_logits(2, *size, classes), *target, tolerance=1e-2)


def test_a_photograph_of_twelve_megapixels_agrees_with_the_reference() -> None:
    logits = smooth_logits(0, 128, 3)
    assert_agrees_with_the_reference(logits, 3000, 4000, tolerance=1e-4)


def test_at_its_own_size_the_mask_is_the_largest_logit() -> None:
    logits = random_logits(3, 17, 23, 5)
    mask, _ = segment_logits(logits, 17, 23)
    assert np.array_equal(mask, logits.argmax(axis=-1))
    assert_agrees_with_the_reference(logits, 17, 23, tolerance=1e-6)


def test_logits_in_another_memory_order_give_the_same_mask() -> None:
    logits = random_logits(4, 6, 7, 3)
    turned = np.asfortranarray(logits)
    for size in ((20, 30), (200, 300), (6, 7)):
        mask, statistics = segment_logits(logits, *size)
        other_mask, other_statistics = segment_logits(turned, *size)
        assert np.array_equal(mask, other_mask)
        assert statistics.confidences == other_statistics.confidences


@pytest.mark.parametrize("size", [(1, 7), (11, 13), (3, 4), (200, 300)])
def test_of_equal_logits_the_first_class_wins(size: tuple[int, int]) -> None:
    logits = np.zeros((3, 4, 5), dtype=np.float32)
    logits[..., 2] = logits[..., 4] = 1.5
    mask, statistics = segment_logits(logits, *size)
    assert (mask == 2).all()
    assert statistics.pixels.tolist() == [0, 0, mask.size, 0, 0]
    share = 1 / (2 + 3 * np.exp(-1.5))
    assert statistics.confidences == [None, None, pytest.approx(share), None, None]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("enlarged", [2, 8, 64])
def test_ties_are_decided_as_exact_arithmetic_would(seed: int, enlarged: int) -> None:
    # Small whole numbers, enlarged by a power of two: float64 rounds nothing, and of the corners,
    # the edges and the inner pixels many are ties.
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 3, (6, 5, 4)).astype(np.float32)
    height, width = 6 * enlarged, 5 * enlarged
    values = reference_values(logits, height, width)
    best = np.sort(values, axis=-1)
    assert (best[..., -1] == best[..., -2]).mean() > 0.01

    mask, statistics = segment_logits(logits, height, width)
    assert np.array_equal(mask, values.argmax(axis=-1))
    assert statistics.pixels.tolist() == [int((mask == c).sum()) for c in range(4)]


def test_classes_that_are_nearly_the_same_are_told_apart() -> None:
    # Float32 would take one for the other in about a pixel of a hundred.
    logits = random_logits(8, 20, 20, 3)
    logits[..., 1] = logits[..., 0] + random_logits(9, 20, 20, 1, scale=1e-4)[..., 0]
    assert_agrees_with_the_reference(logits, 300, 310, tolerance=1e-2)


@pytest.mark.parametrize("size", [(9, 10), (100, 90), (300, 310)])
def test_a_class_far_away_changes_nothing(size: tuple[int, int]) -> None:
    logits = random_logits(5, 9, 10, 3)
    far = np.full((9, 10, 1), -1e9, dtype=np.float32)
    mask, statistics = segment_logits(logits, *size)
    beside, with_far = segment_logits(np.concatenate([logits, far], axis=-1), *size)
    assert np.array_equal(mask, beside)
    assert with_far.confidences == pytest.approx([*statistics.confidences, None])


@pytest.mark.parametrize("size", [(1, 2), (30, 64), (300, 310)])
def test_huge_logits_give_a_confidence_of_one(size: tuple[int, int]) -> None:
    logits = np.array([[[1e38, -1e38], [-1e38, 1e38]]], dtype=np.float32)
    mask, statistics = segment_logits(logits, *size)
    assert (mask[:, : size[1] // 2] == 0).all()
    assert (mask[:, size[1] // 2 :] == 1).all()
    assert statistics.confidences == [1.0, 1.0]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2e38])
@pytest.mark.parametrize("size", [(8, 8), (3, 2), (20, 20), (400, 500)])
def test_logits_that_are_no_numbers_are_refused(wrong: float, size: tuple[int, int]) -> None:
    logits = random_logits(6, 8, 8, 3)
    logits[7, 7, 2] = wrong
    with pytest.raises(ValueError, match=r"logits reach from .* have to be finite numbers"):
        segment_logits(logits, *size)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((8, 8, 256), (9, 9), r"logits of the shape \[8, 8, 256\] make no mask.* 255 classes"),
        ((8, 8, 0), (9, 9), r"logits of the shape \[8, 8, 0\] make no mask"),
        ((0, 8, 3), (9, 9), r"logits of the shape \[0, 8, 3\] make no mask"),
        ((8, 8), (9, 9), r"logits of the shape \[8, 8\] make no mask"),
        ((8, 8, 3), (0, 9), "a mask of 9x0 pixels has none"),
    ],
)
def test_what_no_mask_can_be_made_of_is_refused(
    shape: tuple[int, ...], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        segment_logits(np.zeros(shape, dtype=np.float32), *size)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((128, 128, 3), (3000, 4000)),
        ((2, 2, 3), (2000, 3000)),
        ((128, 128, 255), (200, 300)),
        ((600, 600, 20), (700, 800)),
        ((600, 600, 20), (10, 10)),
    ],
)
def test_beside_the_mask_it_needs_a_few_megabytes(
    shape: tuple[int, int, int], size: tuple[int, int]
) -> None:
    logits = random_logits(7, *shape)
    tracemalloc.start()
    try:
        mask, _ = segment_logits(logits, *size)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - mask.nbytes < 12e6


@pytest.mark.parametrize(("classes", "bits"), [(2, 1), (3, 2), (4, 2), (17, 8), (255, 8)])
@pytest.mark.parametrize("size", [(1, 1), (5, 13), (64, 48)])
def test_an_encoded_mask_comes_back_in_few_bits(
    classes: int, bits: int, size: tuple[int, int]
) -> None:
    palette = Labels.parse([f"class_{i}={i}" for i in range(classes)]).palette
    mask = np.random.default_rng(0).integers(0, classes, size, dtype=np.uint8)
    mask[-1, -1] = classes - 1
    png = encode_mask(mask, palette)

    assert png.startswith(b"\x89PNG")
    assert png[24] == bits  # the bit depth's place in a PNG header
    back = decode_mask(png)
    assert back.dtype == np.uint8
    assert np.array_equal(back, mask)


def test_an_encoded_mask_shows_the_colours_of_its_classes() -> None:
    palette = ((250, 0, 0), (0, 240, 0), (0, 0, 230))
    mask = np.array([[0, 1, 2], [2, 2, 0]], dtype=np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(encode_mask(mask, palette))).convert("RGB"))
    assert np.array_equal(shown, np.array(palette)[mask])


def test_a_cut_out_of_a_mask_is_encoded_as_it_looks() -> None:
    mask = np.arange(24, dtype=np.uint8).reshape(4, 6)[::2, ::-2]
    png = encode_mask(mask, [(i, i, i) for i in range(24)])
    assert decode_mask(png).tolist() == mask.tolist()


@pytest.mark.parametrize("values", ["#804080 #000000 #ffffff", "7 0 255", "7 0 65535"])
def test_encoding_the_values_of_a_large_mask_takes_few_bytes_per_pixel(values: str) -> None:
    labels = Labels.parse([f"class_{i}={value}" for i, value in enumerate(values.split())])
    mask = np.random.default_rng(0).integers(0, 3, (2000, 3000), dtype=np.uint8)
    tracemalloc.start()
    try:
        png = encode_values(mask, labels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    written = read_mask(png, coloured=labels.coloured).values
    assert np.array_equal(written, np.array(labels.values)[mask])
    assert peak - len(png) < 8 * mask.size


def test_the_mask_of_a_large_image_is_decoded() -> None:
    """Of more pixels than Pillow opens."""
    mask = np.zeros((14_000, 13_000), np.uint8)
    mask[::1000, 7] = 2
    np.testing.assert_array_equal(decode_mask(encode_mask(mask, [(0, 0, 0)] * 3)), mask)

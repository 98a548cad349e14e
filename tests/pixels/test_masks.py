"""Masks: interpolation and counts against a slow reference, and PNG files that come back equal."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.pixels.labels import Labels
from segray.pixels.masks import decode_mask, encode_mask, segment_logits

# Below this difference of two logits float32 and float64 may disagree on which is larger.
CLOSE = 1e-3


def random_logits(seed: int, height: int, width: int, classes: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 4, (height, width, classes)).astype(np.float32)


def reference_weights(size: int, target: int) -> npt.NDArray[np.float64]:
    """float64 [target, size]: how much of each cell each pixel takes, one pixel at a time."""
    weights = np.zeros((target, size))
    for pixel in range(target):
        centre = (pixel + 0.5) * size / target - 0.5
        centre = min(max(centre, 0.0), size - 1.0)
        for cell in range(size):
            weights[pixel, cell] = max(0.0, 1.0 - abs(centre - cell))
    return weights


def reference_probabilities(
    logits: npt.NDArray[np.float32], height: int, width: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The interpolated logits and their softmax, float64 [height, width, C]."""
    rows = reference_weights(logits.shape[0], height)
    columns = reference_weights(logits.shape[1], width)
    values = np.einsum("yh,xw,hwc->yxc", rows, columns, logits.astype(np.float64), optimize=True)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return values, powers / powers.sum(axis=-1, keepdims=True)


def assert_agrees_with_the_reference(
    logits: npt.NDArray[np.float32], height: int, width: int
) -> None:
    mask, statistics = segment_logits(logits, height, width)
    values, probabilities = reference_probabilities(logits, height, width)

    assert mask.shape == (height, width)
    assert mask.dtype == np.uint8
    largest_two = np.sort(values, axis=-1)[..., -2:]
    clear = largest_two[..., 1] - largest_two[..., 0] > CLOSE
    assert clear.mean() > 0.9 or clear.size < 20
    assert np.array_equal(mask[clear], values.argmax(axis=-1)[clear])

    classes = range(logits.shape[-1])
    of_winner = np.take_along_axis(probabilities, mask[..., None].astype(int), axis=-1)[..., 0]
    assert statistics.pixels.dtype == np.int64
    assert statistics.pixels.sum() == height * width
    assert statistics.pixels.tolist() == [int((mask == c).sum()) for c in classes]
    expected = [of_winner[mask == c].sum() for c in classes]
    assert np.allclose(statistics.summed_confidence, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(40))
def test_any_size_and_any_number_of_classes_agree_with_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2)
    target_height, target_width = rng.integers(1, 30, 2)
    logits = random_logits(seed, height, width, int(rng.integers(2, 9)))
    assert_agrees_with_the_reference(logits, int(target_height), int(target_width))


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
    ],
)
def test_enlarging_and_shrinking_agree_with_the_reference(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    assert_agrees_with_the_reference(random_logits(1, *size, 3), *target)


@pytest.mark.parametrize(
    ("classes", "height", "width"),
    [(255, 6, 2500), (100, 30, 1200), (2, 700, 900)],
    ids=["one row a band", "a few rows a band", "many rows a band"],
)
def test_working_in_bands_does_not_show(classes: int, height: int, width: int) -> None:
    assert_agrees_with_the_reference(random_logits(2, 8, 9, classes), height, width)


def test_at_its_own_size_the_mask_is_the_largest_logit() -> None:
    logits = random_logits(3, 17, 23, 5)
    mask, _ = segment_logits(logits, 17, 23)
    assert np.array_equal(mask, logits.argmax(axis=-1))


def test_logits_in_another_memory_order_give_the_same_mask() -> None:
    logits = random_logits(4, 6, 7, 3)
    turned = np.asfortranarray(logits)
    assert np.array_equal(segment_logits(turned, 20, 30)[0], segment_logits(logits, 20, 30)[0])


def test_of_equal_logits_the_first_class_wins() -> None:
    logits = np.zeros((3, 4, 5), dtype=np.float32)
    logits[..., 2] = logits[..., 4] = 1.5
    mask, statistics = segment_logits(logits, 11, 13)
    assert (mask == 2).all()
    assert statistics.pixels.tolist() == [0, 0, 143, 0, 0]


def test_huge_logits_give_a_confidence_of_one() -> None:
    logits = np.array([[[1e30, -1e30], [-1e30, 1e30]]], dtype=np.float32)
    mask, statistics = segment_logits(logits, 1, 2)
    assert mask.tolist() == [[0, 1]]
    assert statistics.confidences == [1.0, 1.0]


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

"""The expected IoU: it is the true one where probabilities are calibrated."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.pixels.expected import ExpectedOverlap, ExpectedPixels, find_usual_shares
from segray.pixels.masks import segment_logits
from segray.pixels.metrics import class_iou, confusion_matrix


def draw_logits(
    height: int, width: int, classes: int, seed: int = 0, steepness: float = 4
) -> npt.NDArray[np.float32]:
    """Smooth noise, float32 [H, W, C]."""
    rng = np.random.default_rng(seed)
    planes = [
        Image.fromarray(rng.normal(0, steepness, (6, 6)).astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for _ in range(classes)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shares = np.exp(logits.astype(np.float64))
    return shares / shares.sum(axis=-1, keepdims=True)


def expect(
    logits: npt.NDArray[np.float32], height: int, width: int, rows: int | None = None
) -> ExpectedOverlap:
    """The overlap in an image, from logits that arrive some rows at a time."""
    _, statistics = segment_logits(logits, height, width)
    pixels = ExpectedPixels(logits.shape)
    for start in range(0, len(logits), rows or len(logits)):
        pixels.add(logits[start : start + (rows or len(logits))])
    expected = pixels.finish(statistics)
    return ExpectedOverlap.of(statistics.pixels, statistics.summed_confidence, expected)


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_it_is_the_true_iou_of_truths_drawn_with_the_probabilities(classes: int) -> None:
    overlap, confusion = ExpectedOverlap.zero(classes), np.zeros((classes, classes), np.int64)
    for seed in range(4):
        logits = draw_logits(160, 128, classes, seed)
        overlap += expect(logits, 160, 128)
        noise = np.random.default_rng(seed).gumbel(size=logits.shape)
        truth, winner = (logits + noise).argmax(axis=-1), logits.argmax(axis=-1)
        confusion += confusion_matrix(truth, winner, classes)
    np.testing.assert_allclose(overlap.class_iou(), class_iou(confusion), atol=0.02)
    assert overlap.mean_iou() == pytest.approx(class_iou(confusion).mean(), abs=0.01)


def test_few_logits_tell_as_much_as_all_pixels_of_a_large_mask() -> None:
    logits = draw_logits(128, 128, 5)
    planes = [Image.fromarray(plane) for plane in np.moveaxis(logits, -1, 0)]
    wide = [np.asarray(plane.resize((700, 500), Image.Resampling.BILINEAR)) for plane in planes]
    shares = softmax(np.stack(wide, axis=-1))
    won = np.eye(5, dtype=bool)[shares.argmax(axis=-1)]
    intersection = (shares * won).sum(axis=(0, 1))
    union = (shares + won - shares * won).sum(axis=(0, 1))
    found = expect(logits, 500, 700)
    np.testing.assert_allclose(found.class_iou(), intersection / union, atol=0.005)


@pytest.mark.parametrize("rows", [1, 3, 4, 50])
def test_rows_of_logits_may_arrive_a_few_at_a_time(rows: int) -> None:
    logits = draw_logits(203, 150, 3)
    np.testing.assert_allclose(
        expect(logits, 60, 40, rows).union, expect(logits, 60, 40).union, rtol=1e-6
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (90, 1), (31, 33)])
def test_narrow_images_have_one_too(size: tuple[int, int]) -> None:
    overlap = expect(draw_logits(*size, 3), 40, 30)
    assert 0 < overlap.image_iou([0.3] * 3) <= 1


def test_the_formula() -> None:
    # 0.9 and 0.6 of class 0 where it won; 0.2 of it where class 1 did.
    overlap = ExpectedOverlap.of(np.array([2, 1]), np.array([1.5, 0.8]), np.array([1.7, 1.3]))
    assert overlap.class_iou() == pytest.approx([1.5 / 2.2, 0.8 / 1.5])
    assert overlap.mean_iou() == pytest.approx((1.5 / 2.2 + 0.8 / 1.5) / 2)
    assert overlap.class_iou(2) == pytest.approx([(1.5 / 2.2) ** 2, (0.8 / 1.5) ** 2])
    assert overlap.mean_iou(2) == pytest.approx(overlap.class_iou(2).mean())


def test_a_network_that_is_sure_expects_no_error() -> None:
    logits = 100 * np.sign(draw_logits(64, 64, 2))
    logits[..., 1] = -logits[..., 0]
    assert expect(logits, 64, 64).mean_iou() == pytest.approx(1, abs=1e-6)


def test_a_class_is_there_if_it_won_a_pixel_or_is_overlooked() -> None:
    pixels, confidence = np.array([9999, 0, 0, 1]), np.array([9899.0, 0.0, 0.0, 0.5])
    overlap = ExpectedOverlap.of(pixels, confidence, np.array([9899.0, 9.0, 91.0, 1.0]))
    iou = overlap.class_iou()
    assert iou[0] == pytest.approx(9899 / 9999)
    assert np.isnan(iou[1])
    assert iou[2] == 0
    assert iou[3] == pytest.approx(0.5 / 1.5)
    assert overlap.mean_iou() == pytest.approx(np.mean([9899 / 9999, 0, 0.5 / 1.5]))


def test_a_class_that_hardly_occurs_hardly_counts_in_the_figure_of_an_image() -> None:
    """One mask is right but for some probability of other classes, and one is half wrong."""
    good = ExpectedOverlap.of(
        np.array([7000, 2995, 5, 0]),
        np.array([6950.0, 2970.0, 1.0, 0.0]),
        np.array([6955.0, 2975.0, 20.0, 50.0]),
    )
    bad = ExpectedOverlap.of(
        np.array([7000, 3000, 0, 0]),
        np.array([6000.0, 1500.0, 0.0, 0.0]),
        np.array([7000.0, 3000.0, 0.0, 0.0]),
    )
    assert good.mean_iou() < bad.mean_iou()
    assert good.image_iou([0.1] * 4) > 0.8
    assert bad.image_iou([0.1] * 4) < 0.7


def test_small_things_count_if_they_are_usually_small() -> None:
    overlap = ExpectedOverlap.of(
        np.array([9950, 50]), np.array([9945.0, 30.0]), np.array([9950.0, 50.0])
    )
    plain = overlap.mean_iou()
    assert overlap.image_iou([0.99, 0.01]) == pytest.approx(plain)
    assert overlap.image_iou([0.99, 0.5]) > plain + 0.2


def test_the_usual_share_is_the_mean_over_images_with_the_class() -> None:
    pixels = np.array([[90, 10, 0], [100, 0, 0], [35, 15, 0], [0, 0, 0]])
    assert find_usual_shares(pixels) == pytest.approx([(0.9 + 1 + 0.7) / 3, 0.2, 0.04], abs=1e-4)


def test_a_rare_class_counts_fully_over_many_images() -> None:
    """As small things in large images: each has a thousandth of its image."""
    images = ExpectedOverlap.of(
        np.tile([9990, 10], (10, 1)), np.tile([9985.0, 6.0], (10, 1)), np.tile([9988, 12], (10, 1))
    )
    assert images.sum().mean_iou() == pytest.approx((9985 / 9993 + 6 / 16) / 2)


def test_images_are_summed_before_anything_is_divided() -> None:
    pixels = np.array([[100, 0], [50, 50]])
    confidence = np.array([[90.0, 0.0], [25.0, 40.0]])
    each = ExpectedOverlap.of(pixels, confidence, np.array([[99.95, 0.05], [30.0, 70.0]]))
    assert np.isnan(each.class_iou()[0, 1])
    both = each.sum()
    assert both.class_iou() == pytest.approx([115 / (109.95 + 55), 40 / (0.05 + 80)])
    one, other = (ExpectedOverlap(*(array[i] for array in vars(each).values())) for i in (0, 1))
    np.testing.assert_array_equal((one + other).class_iou(), both.class_iou())

"""The losses of one replica; that the parts of several add up, test_network.py shows."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segray.pixels.labels import IGNORED

Array = npt.NDArray[np.float32]
LOSSES = ("ce", "focal", "ce+dice", "ce+lovasz")
CLASSES = 4
EVEN = [1.0] * CLASSES


@pytest.fixture(scope="module")
def logits() -> Array:
    return np.random.default_rng(0).normal(0, 2, (2, 8, 8, CLASSES)).astype(np.float32)


@pytest.fixture(scope="module")
def masks() -> npt.NDArray[np.uint8]:
    """A third of the pixels to ignore, and of four classes the last one nowhere."""
    rng = np.random.default_rng(1)
    return rng.choice(np.array([0, 1, 2, IGNORED], np.uint8), (2, 8, 8), p=[0.4, 0.2, 0.1, 0.3])


def compute(
    loss: Any,
    logits: Array,
    masks: npt.NDArray[np.uint8],
    class_weights: list[float] = EVEN,
    overlap_weight: float = 0.5,
    label_smoothing: float = 0.0,
) -> tuple[float, Array]:
    """The loss and its gradient by the logits, in a graph as in training."""
    import tensorflow as tf

    from segray.training.step.losses import replica_loss

    def replica(logits: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value, _ = replica_loss(
                loss, [logits], [masks], tf.constant(class_weights), overlap_weight, label_smoothing
            )
        return value, tape.gradient(value, logits)

    @tf.function
    def run(logits: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.distribute.get_strategy().run(replica, args=(logits, masks))

    value, gradient = run(tf.constant(logits), tf.constant(masks))
    assert value.shape == ()
    return float(value), gradient.numpy()


def softmax(logits: Array) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def labelled(
    logits: Array, masks: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Of the pixels that count, the probabilities of the classes and the true class."""
    counted = masks != IGNORED
    return softmax(logits)[counted], masks[counted].astype(np.intp)


def true_probabilities(logits: Array, masks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    probabilities, truth = labelled(logits, masks)
    return probabilities[np.arange(len(truth)), truth]


def test_cross_entropy_is_the_mean_over_the_labelled_pixels(logits, masks) -> None:
    expected = -np.log(true_probabilities(logits, masks)).mean()
    assert compute("ce", logits, masks)[0] == pytest.approx(expected, rel=1e-5)


def test_class_weights_weigh_the_mean(logits, masks) -> None:
    weights = [0.5, 3.0, 1.0, 7.0]
    pixels = np.array(weights)[labelled(logits, masks)[1]]
    likely = true_probabilities(logits, masks)
    expected = np.average(-np.log(likely), weights=pixels)
    assert compute("ce", logits, masks, weights)[0] == pytest.approx(expected, rel=1e-5)
    expected = np.average(-np.log(likely) * (1 - likely) ** 2, weights=pixels)
    assert compute("focal", logits, masks, weights)[0] == pytest.approx(expected, rel=1e-5)
    # Only their ratios count.
    ten_times = compute("ce", logits, masks, [10 * weight for weight in weights])[0]
    assert ten_times == pytest.approx(compute("ce", logits, masks, weights)[0], rel=1e-5)


def test_a_class_of_no_weight_is_not_learned(logits, masks) -> None:
    _, gradient = compute("ce", logits, masks, [1.0, 0.0, 1.0, 1.0])
    assert (gradient[masks == 1] == 0).all()
    assert (gradient[masks == 0] != 0).any()


def test_label_smoothing_gives_each_class_a_share_of_the_target(logits, masks) -> None:
    probabilities, truth = labelled(logits, masks)
    targets = np.full(probabilities.shape, 0.2 / CLASSES)
    targets[np.arange(len(truth)), truth] += 0.8
    expected = -(targets * np.log(probabilities)).sum(axis=-1).mean()
    value, _ = compute("ce", logits, masks, label_smoothing=0.2)
    assert value == pytest.approx(expected, rel=1e-5)


def test_focal_loss_plays_down_what_is_known(logits, masks) -> None:
    likely = true_probabilities(logits, masks)
    expected = (-((1 - likely) ** 2) * np.log(likely)).mean()
    assert compute("focal", logits, masks)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("overlap_weight", [0.5, 2.0])
def test_dice_is_the_mean_over_the_classes_that_occur(logits, masks, overlap_weight) -> None:
    probabilities, truth = labelled(logits, masks)
    dice = []
    for index in np.unique(truth):
        is_class, guessed = truth == index, probabilities[:, index]
        # One pixel is added to both sums, so that nothing is divided by nothing.
        dice.append((2 * guessed[is_class].sum() + 1) / (guessed.sum() + is_class.sum() + 1))
    assert len(dice) == CLASSES - 1
    expected = -np.log(true_probabilities(logits, masks)).mean() + overlap_weight * (
        1 - np.mean(dice)
    )
    value, _ = compute("ce+dice", logits, masks, overlap_weight=overlap_weight)
    assert value == pytest.approx(expected, rel=1e-5)


def lovasz(errors: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """What each pixel's error is multiplied by, as Berman et al. 2018 have it, by sorting."""
    order = np.argsort(-errors)
    found, others = np.cumsum(truth[order]), np.cumsum(~truth[order])
    loss = 1 - (truth.sum() - found) / (truth.sum() + others)
    growth = np.empty(len(errors))
    growth[order] = np.diff(loss, prepend=0.0)
    return growth


def test_lovasz_is_the_mean_over_images_of_the_classes_that_occur() -> None:
    rng = np.random.default_rng(3)
    masks = rng.choice(np.array([0, 1, 2, IGNORED], np.uint8), (3, 48, 48), p=[0.4, 0.2, 0.1, 0.3])
    masks[1][masks[1] == 2] = 0
    logits = rng.normal(0, 2, (3, 48, 48, CLASSES)).astype(np.float32)
    images, gradient = [], np.zeros((3, 48, 48, CLASSES))
    for number, (image, mask) in enumerate(zip(logits, masks, strict=True)):
        probabilities, truth = labelled(image, mask)
        values, slopes = [], np.zeros(probabilities.shape)
        for index in np.unique(truth):
            errors = np.abs((truth == index) - probabilities[:, index])
            growth = lovasz(errors, truth == index)
            values.append(errors @ growth)
            slopes[:, index] = np.where(truth == index, -growth, growth)
        images.append(np.mean(values))
        slopes /= len(values) * len(logits)
        # Through the softmax.
        mean = (slopes * probabilities).sum(axis=-1, keepdims=True)
        gradient[number][mask != IGNORED] = probabilities * (slopes - mean)
    value, found = compute("ce+lovasz", logits, masks, overlap_weight=0.7)
    alone, plain = compute("ce", logits, masks)
    # The errors are counted in bins.
    assert (value - alone) / 0.7 == pytest.approx(np.mean(images), rel=1e-4)
    difference = (found - plain) / 0.7 - gradient
    assert np.linalg.norm(difference) < 0.01 * np.linalg.norm(gradient)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_truth_costs_nothing_and_its_opposite_a_lot(loss: str, masks) -> None:
    truth = 30 * np.eye(CLASSES, dtype=np.float32)[np.where(masks == IGNORED, 0, masks)]
    value, gradient = compute(loss, truth, masks)
    assert 0 <= value < 0.01
    assert np.isfinite(gradient).all()
    assert compute(loss, -truth, masks)[0] > 1


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_ignored_pixels_do_not_count(loss: str, label_smoothing: float, logits, masks) -> None:
    """Whatever the network says of them, it learns nothing from them and nothing else by them."""
    rng = np.random.default_rng(2)
    garbage = logits.copy()
    ignored = masks == IGNORED
    garbage[ignored] = rng.normal(0, 1e4, garbage[ignored].shape)
    value, gradient = compute(loss, logits, masks, label_smoothing=label_smoothing)
    other_value, other_gradient = compute(loss, garbage, masks, label_smoothing=label_smoothing)
    assert other_value == pytest.approx(value, rel=1e-6)
    assert (gradient[ignored] == 0).all()
    assert (other_gradient[ignored] == 0).all()
    np.testing.assert_allclose(other_gradient[~ignored], gradient[~ignored], rtol=1e-5, atol=1e-9)
    assert (gradient[~ignored] != 0).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_labels_costs_nothing(loss: str, logits) -> None:
    value, gradient = compute(loss, logits, np.full((2, 8, 8), IGNORED, np.uint8))
    assert value == 0
    assert (gradient == 0).all()


def test_the_reported_loss_is_the_plain_sum_over_the_labelled_pixels(logits, masks) -> None:
    from segray.training.step.losses import replica_loss, summed_cross_entropy

    expected = -np.log(true_probabilities(logits, masks)).sum()
    assert float(summed_cross_entropy(logits, masks)) == pytest.approx(expected, rel=1e-5)
    nothing = np.full((2, 8, 8), IGNORED, np.uint8)
    assert float(summed_cross_entropy(logits, nothing)) == 0
    # As training reports it, whatever it makes small.
    for loss in LOSSES:
        weights = np.array([1, 2, 3, 4], np.float32)
        _, summed = replica_loss(loss, [logits], [masks], weights, 0.7, 0.1)
        assert float(summed) == pytest.approx(expected, rel=1e-5)

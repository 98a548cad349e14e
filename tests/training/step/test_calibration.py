"""Temperature scaling."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from segray.pixels.labels import IGNORED
from segray.training.config import TrainConfig
from tests.support import square


def draw_truth(logits: npt.NDArray[np.float32], seed: int = 1) -> npt.NDArray[np.uint8]:
    """A class for each row, drawn with the probabilities that its logits stand for."""
    noise = np.random.default_rng(seed).gumbel(size=logits.shape)
    return (logits + noise).argmax(axis=-1).astype(np.uint8)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_what_logits_were_multiplied_by(temperature: float) -> None:
    from segray.training.step.calibration import fit_temperature

    logits = np.random.default_rng(0).normal(0, 3, (50_000, 4)).astype(np.float32)
    truth = draw_truth(logits)
    assert fit_temperature(temperature * logits, truth) == pytest.approx(temperature, rel=0.03)
    # Whatever is added to all classes, and however large logits are, says nothing.
    far = temperature * logits + 1e4
    assert fit_temperature(far, truth) == pytest.approx(temperature, rel=0.03)


def test_the_temperature_is_bounded_and_left_alone_where_nothing_is_wrong() -> None:
    from segray.training.step.calibration import fit_temperature

    logits = np.random.default_rng(0).normal(0, 3, (100, 4)).astype(np.float32)
    right = logits.argmax(axis=1).astype(np.uint8)
    wrong = logits.argmin(axis=1).astype(np.uint8)
    assert fit_temperature(logits, wrong) == pytest.approx(4.0)
    assert fit_temperature(logits, right) == 1.0
    assert fit_temperature(logits[:0], right[:0]) == 1.0
    # One that is all but always right has been too modest.
    right[0] = wrong[0]
    assert 0.25 <= fit_temperature(0.01 * logits, right) < 0.5


@pytest.mark.parametrize("wrong", [0.0, 0.2, 0.6])
def test_the_exponent_brings_the_expected_mean_iou_to_the_true_one(wrong: float) -> None:
    """Some pixels have a class of which the probabilities do not know."""
    from segray.training.step.calibration import fit_exponent

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 4)).astype(np.float32)
    truth = draw_truth(logits)
    truth[rng.random(len(truth)) < wrong] = 3
    exponent = fit_exponent(logits, truth)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    winner = logits.argmax(axis=1)
    expected, true = [], []
    for class_id in range(4):
        won, here = winner == class_id, truth == class_id
        p = shares[:, class_id]
        expected.append(p[won].sum() / (won.sum() + p[~won].sum()))
        true.append((won & here).sum() / (won | here).sum())
    assert np.mean(np.array(expected) ** exponent) == pytest.approx(np.mean(true), abs=1e-4)
    assert exponent == pytest.approx(1, abs=0.05) if not wrong else exponent > 1.1
    assert fit_exponent(logits, winner.astype(np.uint8)) == 1


def test_a_class_without_any_probability_does_not_spoil_the_exponent() -> None:
    from segray.training.step.calibration import fit_exponent

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20_000, 4)).astype(np.float32)
    truth = draw_truth(logits)
    logits[:, 3] = -200
    hopeful = fit_exponent(logits, truth)
    logits[:, 3] = -20
    assert hopeful == pytest.approx(fit_exponent(logits, truth), rel=0.01)
    assert hopeful > 1


class Validation:
    """Examples in memory."""

    def __init__(self, images: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8]) -> None:
        self.images, self.masks = images, masks

    def __len__(self) -> int:
        return len(self.images)

    def read(
        self, batches: Iterable[npt.NDArray[np.int64]]
    ) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        for indices in batches:
            yield self.images[indices], self.masks[indices]


def test_a_calibrated_network_draws_the_same_masks_and_is_as_sure_as_it_should_be() -> None:
    from segray.model.unet import build_unet
    from segray.pixels.metrics import summed_cross_entropy
    from segray.training.step.calibration import Calibration, divide_logits, find_calibration

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (19, 32, 32, 3), dtype=np.uint8)
    model = build_unet(square(3, 32), b"")
    last = model.get_layer("logits")
    spread = model.predict_on_batch(images).std()
    last.set_weights([9 / spread * weights for weights in last.get_weights()])
    before = model.predict_on_batch(images)
    # Three times as sure as it has reason to be; and what is ignored would say the opposite.
    masks = draw_truth(before / 3)
    masks[:, :8] = IGNORED

    found = find_calibration(model.predict_on_batch, Validation(images, masks), TrainConfig(seed=0))
    temperature = found.temperature
    assert temperature == pytest.approx(3, rel=0.05)
    # Truths that are drawn with the probabilities need nothing more.
    assert found.iou_exponent == pytest.approx(1, rel=0.05)
    divide_logits(model, temperature)
    after = model.predict_on_batch(images)
    np.testing.assert_allclose(after, before / temperature, rtol=1e-4, atol=1e-4)
    assert (after.argmax(axis=-1) == before.argmax(axis=-1)).mean() > 0.9999
    assert summed_cross_entropy(after, masks)[0] < 0.9 * summed_cross_entropy(before, masks)[0]
    again = Validation(images, masks)
    found = find_calibration(model.predict_on_batch, again, TrainConfig())
    assert found.temperature == pytest.approx(1, rel=0.01)

    # Where next to nothing is labelled, nothing is known.
    masks[:, 12:] = IGNORED
    masks[:, :, 8:] = IGNORED
    assert find_calibration(model.predict_on_batch, again, TrainConfig()) == Calibration(1, 1)

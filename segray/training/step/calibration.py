"""Calibration: make the network's confidence match the share of pixels that it gets right.

Training losses reward overconfidence, most of all on small training sets. Temperature scaling
(https://arxiv.org/abs/1706.04599) divides all logits by one number that is fitted on the validation
set. Masks do not change; the probabilities become calibrated.

They are so on average only: of narrow classes they may remain too high, and with them the expected
IoU (`segray.pixels.expected`). A power of it is fitted on the same pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from segray.pixels.expected import ExpectedOverlap
from segray.pixels.framing import PADDING
from segray.pixels.labels import IGNORED
from segray.pixels.metrics import class_iou, confusion_matrix
from segray.pixels.statistics import Tally
from segray.training.config import TrainConfig
from segray.training.data.crops import WindowedExamples
from segray.training.data.examples import DecodedExamples, StreamedExamples
from segray.training.data.prefetch import Prefetched
from segray.training.step.blocks import block_length

# The range of the temperature, and of the exponent of the expected IoU.
_LEAST, _MOST = 0.25, 4.0
_HALVINGS = 30
# Enough samples to fit one number. Below _TOO_FEW a fit is not reliable, because the pixels of an
# image are strongly correlated.
_IMAGES, _PIXELS, _TOO_FEW = 1024, 1 << 16, 1 << 12


@dataclass(frozen=True)
class Calibration:
    """What was fitted on a validation set.

    Attributes:
        temperature: the number by which all logits are to be divided, 0.25 to 4.
        iou_exponent: see `segray.model.bundle.Bundle`, 0.25 to 4.
    """

    temperature: float = 1.0
    iou_exponent: float = 1.0


def find_calibration(
    predict: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]],
    examples: DecodedExamples | StreamedExamples | WindowedExamples,
    config: TrainConfig,
) -> Calibration:
    """Calibrate a network on the validation set.

    Args:
        predict: computes the network's logits, as
            `segray.training.step.network.TrainableNetwork.predict` does.
        examples: the validation set. A large one is sampled, both its images and their pixels.
        config: the configuration of the run, whose seed also seeds the sampling.

    Returns:
        The temperature that minimises the cross-entropy, and the exponent with which the expected
        mean IoU is the true one; both are 1 if fewer than 4,096 pixels are labelled.
    """
    logits, truth = _draw_pixels(predict, examples, config)
    labelled = truth != IGNORED
    if labelled.sum() < _TOO_FEW:
        return Calibration()
    temperature = fit_temperature(logits[labelled], truth[labelled])
    return Calibration(temperature, fit_exponent(logits / temperature, truth))


def divide_logits(model: keras.Model, temperature: float) -> None:
    """Divide all logits of a network by a temperature, in the weights of its last layer."""
    last = model.get_layer("logits")
    last.set_weights([weights / temperature for weights in last.get_weights()])


def fit_temperature(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8]) -> float:
    """Return the temperature that minimises the mean cross-entropy of logits / temperature.

    Args:
        logits: float32 [N, C].
        truth: the ground truth, uint8 [N] of class ids.

    Returns:
        0.25 to 4; 1 if every pixel is classified correctly, as no confidence is then too high.
    """
    if (logits.argmax(axis=1) == truth).all():
        return 1.0
    # The mean is convex in 1 / temperature, so bisection on its derivative finds the minimum.
    low, high = np.log(1 / _MOST), np.log(1 / _LEAST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(logits, truth, np.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return float(np.exp(-(low + high) / 2))


def _slope(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8], factor: float) -> float:
    """Return the derivative of the mean cross-entropy of factor * logits by the factor."""
    powers = np.exp(factor * (logits - logits.max(axis=1, keepdims=True)))
    expected = (powers * logits).sum(axis=1) / powers.sum(axis=1)
    return float((expected - logits[np.arange(len(truth)), truth]).mean(dtype=np.float64))


def fit_exponent(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8]) -> float:
    """Return the power of the expected IoU of each class whose mean is the true mean IoU.

    Args:
        logits: float32 [N, C], calibrated.
        truth: the ground truth, uint8 [N] of class ids or `IGNORED`. What is expected is of all
            pixels, as in a segmentation, and what is true of the labelled ones.

    Returns:
        0.25 to 4; 1 if every labelled pixel is classified correctly.
    """
    winner = logits.argmax(axis=1).astype(np.uint8)
    true = class_iou(confusion_matrix(truth, winner, logits.shape[1]))
    known = ~np.isnan(true)
    if (true[known] == 1).all():
        return 1.0
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    tally = Tally(logits.shape[1])
    tally.add(winner, shares.max(axis=1))
    counted = tally.statistics()
    overlap = ExpectedOverlap.of(
        counted.pixels, counted.summed_confidence, shares.sum(axis=0, dtype=np.float64)
    )
    # 0 of 0 if a class has no probability at all.
    ratio = np.divide(
        overlap.intersection, overlap.union, out=np.zeros(len(known)), where=overlap.union > 0
    )
    expected, wanted = ratio[known], true[known].mean()
    # The mean falls as the exponent rises, so bisection finds the one.
    low, high = np.log(_LEAST), np.log(_MOST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if (expected ** np.exp(middle)).mean() > wanted:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def _draw_pixels(
    predict: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]],
    examples: DecodedExamples | StreamedExamples | WindowedExamples,
    config: TrainConfig,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Sample equally many labelled pixels per image, and others in proportion, but no more of them.

    Windows of images have as many as they have pixels that no other window has.

    Returns:
        Logits float32 [N, C], and class ids uint8 [N], `IGNORED` for pixels without a label.
    """
    rng = np.random.default_rng(config.seed)
    images = np.sort(rng.permutation(len(examples))[:_IMAGES])
    quota = -(-_PIXELS // len(images))
    block = block_length(config.frame.pixels)
    chunks = [images[i : i + block] for i in range(0, len(images), block)]
    logits, truth = [], []
    for chunk, (pictures, masks) in zip(chunks, Prefetched(examples.read(chunks)), strict=True):
        counting = np.ones(masks.shape, dtype=bool)
        if isinstance(examples, WindowedExamples):
            counting = examples.counts(chunk)
        columns = pictures, predict(pictures), masks, counting
        for picture, pixels, mask, counts in zip(*columns, strict=True):
            most = math.ceil(quota * counts.mean())
            labelled = np.flatnonzero(mask != IGNORED)
            chosen = rng.permutation(labelled)[:most]
            # What is exactly of that grey and has no label is not of the image, but around it.
            there = counts & (picture != PADDING).any(axis=-1)
            others = np.flatnonzero((mask == IGNORED) & there)
            count = len(chosen) * len(others) // max(1, len(labelled))
            chosen = np.append(chosen, rng.permutation(others)[: min(count, most)])
            logits.append(pixels.reshape(-1, pixels.shape[-1])[chosen])
            truth.append(mask.ravel()[chosen])
    return np.concatenate(logits), np.concatenate(truth)

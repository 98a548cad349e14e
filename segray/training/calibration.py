"""Calibration: a network whose confidence is the share of pixels that it gets right.

What training makes small rewards overconfidence, most of all on few images. Temperature scaling
(https://arxiv.org/abs/1706.04599) divides all logits by one number, fitted on the validation part:
every mask stays as it is, and the probabilities come true.
"""

import keras
import numpy as np
import numpy.typing as npt

from segray.pixels.labels import IGNORED
from segray.training.examples import DecodedExamples, StreamedExamples
from segray.training.scoring import block_length

# Where the temperature is looked for; a network that is always right has none.
_LEAST, _MOST = 0.25, 4.0
_HALVINGS = 30
# So many fix one number to the third digit.
_IMAGES, _PIXELS = 1024, 1 << 16


def calibrate(model: keras.Model, examples: DecodedExamples | StreamedExamples, seed: int) -> float:
    """Divide a network's logits by the temperature at which their cross-entropy is least.

    Args:
        model: of `segray.model.unet.build_unet`; the weights of its last layer are changed.
        examples: of the validation part; of many images and pixels some are drawn.
        seed: of what is drawn.

    Returns:
        The temperature, 0.25 to 4.
    """
    temperature = fit_temperature(*_draw_pixels(model, examples, seed))
    last = model.get_layer("logits")
    last.set_weights([weights / temperature for weights in last.get_weights()])
    return temperature


def fit_temperature(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8]) -> float:
    """The temperature at which the mean cross-entropy of logits / temperature is least.

    Args:
        logits: float32 [N, C].
        truth: uint8 [N] of class ids.

    Returns:
        0.25 to 4; 1 if N is 0.
    """
    if not len(truth):
        return 1.0
    # The slope by 1 / temperature only rises: the mean is convex in it.
    low, high = np.log(1 / _MOST), np.log(1 / _LEAST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(logits, truth, np.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return float(np.exp(-(low + high) / 2))


def _slope(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8], factor: float) -> float:
    """The slope, by a factor, of the mean cross-entropy of logits times that factor."""
    powers = np.exp(factor * (logits - logits.max(axis=1, keepdims=True)))
    expected = (powers * logits).sum(axis=1) / powers.sum(axis=1)
    return float((expected - logits[np.arange(len(truth)), truth]).mean(dtype=np.float64))


def _draw_pixels(
    model: keras.Model, examples: DecodedExamples | StreamedExamples, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Logits float32 [N, C] and class ids uint8 [N] of labelled pixels."""
    rng = np.random.default_rng(seed)
    images = np.sort(rng.permutation(len(examples))[:_IMAGES])
    size, classes = model.output_shape[1], model.output_shape[-1]
    share = _PIXELS / (len(images) * size**2)
    block = block_length(size)
    chunks = [images[i : i + block] for i in range(0, len(images), block)]
    # Every block is as long as the others: the network is compiled for one length.
    drawn = examples.read(np.resize(chunk, block) for chunk in chunks)
    logits, truth = [np.empty((0, classes), np.float32)], [np.empty(0, np.uint8)]
    for chunk, (pictures, masks) in zip(chunks, drawn, strict=True):
        chosen = (masks != IGNORED) & (rng.random(masks.shape) < share)
        chosen[len(chunk) :] = False
        logits.append(model.predict_on_batch(pictures)[chosen])
        truth.append(masks[chosen])
    return np.concatenate(logits), np.concatenate(truth)

"""Calibration: a network whose confidence is the share of pixels that it gets right.

What training makes small rewards overconfidence, most of all on few images. Temperature scaling
(https://arxiv.org/abs/1706.04599) divides all logits by one number, fitted on the validation part:
every mask stays as it is, and the probabilities come true.
"""

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from segray.pixels.labels import IGNORED
from segray.training.blocks import block_length, fill_block
from segray.training.config import TrainConfig
from segray.training.examples import DecodedExamples, StreamedExamples
from segray.training.parts import predict_block
from segray.training.prefetch import Prefetched

# Where the temperature is looked for.
_LEAST, _MOST = 0.25, 4.0
_HALVINGS = 30
# Enough for one number; and too few, as pixels of an image are much alike.
_IMAGES, _PIXELS, _TOO_FEW = 1024, 1 << 16, 1 << 12


def calibrate(
    model: keras.Model, examples: DecodedExamples | StreamedExamples, config: TrainConfig
) -> float:
    """Divide a network's logits by the temperature at which their cross-entropy is least.

    Args:
        model: of `segray.model.unet.build_unet`; the weights of its last layer are changed.
        examples: of the validation part; of many images and pixels some are drawn.
        config: of the run; its seed is that of what is drawn.

    Returns:
        The temperature, 0.25 to 4; 1 where fewer than 4,096 pixels are labelled.
    """
    logits, truth = _draw_pixels(model, examples, config)
    if len(truth) < _TOO_FEW:
        return 1.0
    temperature = fit_temperature(logits, truth)
    last = model.get_layer("logits")
    last.set_weights([weights / temperature for weights in last.get_weights()])
    return temperature


def fit_temperature(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8]) -> float:
    """The temperature at which the mean cross-entropy of logits / temperature is least.

    Args:
        logits: float32 [N, C].
        truth: uint8 [N] of class ids.

    Returns:
        0.25 to 4; 1 where nothing is wrong, and so no confidence too high.
    """
    if (logits.argmax(axis=1) == truth).all():
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
    model: keras.Model, examples: DecodedExamples | StreamedExamples, config: TrainConfig
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Logits float32 [N, C] and class ids uint8 [N] of labelled pixels, equally many an image."""
    rng = np.random.default_rng(config.seed)
    images = np.sort(rng.permutation(len(examples))[:_IMAGES])
    quota = -(-_PIXELS // len(images))
    block = block_length(config.image_size)
    chunks = (images[i : i + block] for i in range(0, len(images), block))
    predict = tf.function(lambda pictures: predict_block(model, pictures, config.use_gpu))
    logits, truth = [], []
    for pictures, masks in Prefetched(examples.read(chunks)):
        # Every block is as long as the others: the network is compiled for one length.
        predicted = predict(fill_block(pictures, block, 0)).numpy()
        for pixels, mask in zip(predicted, masks, strict=False):
            labelled = np.flatnonzero(mask != IGNORED)
            chosen = rng.permutation(labelled)[:quota]
            logits.append(pixels.reshape(-1, pixels.shape[-1])[chosen])
            truth.append(mask.ravel()[chosen])
    return np.concatenate(logits), np.concatenate(truth)

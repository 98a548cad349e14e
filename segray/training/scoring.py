"""Scoring: what one worker counts on its share of the validation part."""

import numpy as np
import numpy.typing as npt

from segray.pixels.labels import IGNORED
from segray.pixels.metrics import Confusion, confusion_matrix
from segray.training.examples import DecodedExamples, StreamedExamples
from segray.training.network import TrainableNetwork
from segray.training.prefetch import Prefetched

# The last bit of an image's logits hangs on how many images are predicted with it. So it is always
# the same number, and blocks of images are dealt out instead of images: the counts are the same
# whatever the number of workers.
_MOST_IMAGES = 16
# What is kept of a block grows with its pixels: sixteen images at a side of 512, four at 1024.
_MOST_PIXELS = 16 * 512**2


def block_length(image_size: int) -> int:
    """How many images of a side in pixels are predicted at once, whatever the --batch-size."""
    return min(_MOST_IMAGES, max(1, _MOST_PIXELS // image_size**2))


def score_share(
    network: TrainableNetwork,
    examples: DecodedExamples | StreamedExamples,
    rank: int,
    workers: int,
) -> tuple[Confusion, float]:
    """Predict this worker's share of the examples; each example is in exactly one share.

    Args:
        network: equal on all workers.
        examples: all of them.
        rank: of this worker, from 0.
        workers: how many there are.

    Returns:
        The confusion matrix, int64 [C, C], and the summed cross-entropy, both of labelled pixels
        alone. Those of all shares add up to those of all examples.
    """
    classes = network.model.output_shape[-1]
    confusion = np.zeros((classes, classes), dtype=np.int64)
    loss = 0.0
    block = block_length(network.model.input_shape[1])
    starts = range(rank * block, len(examples), workers * block)
    indices = (np.arange(start, min(start + block, len(examples))) for start in starts)
    for images, masks in Prefetched(examples.read(indices)):
        images, masks = fill_block(images, block, 0), fill_block(masks, block, IGNORED)
        predicted, block_loss = network.score(images, masks)
        confusion += confusion_matrix(masks, predicted, classes)
        loss += block_loss
    return confusion, loss


def fill_block(array: npt.NDArray[np.uint8], block: int, value: int) -> npt.NDArray[np.uint8]:
    """A block of the full length, uint8 [block, ...], with a value in what is missing."""
    missing = [(0, block - len(array)), *[(0, 0)] * (array.ndim - 1)]
    return np.pad(array, missing, constant_values=value)

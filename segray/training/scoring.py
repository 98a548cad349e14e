"""Scoring: what one worker counts on its share of the validation part."""

import numpy as np

from segray.pixels.metrics import Confusion, confusion_matrix
from segray.training.blocks import block_length
from segray.training.examples import DecodedExamples, StreamedExamples
from segray.training.network import TrainableNetwork
from segray.training.prefetch import Prefetched


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
    # Blocks of images are dealt out instead of images: see `segray.training.blocks`.
    block = block_length(network.model.input_shape[1])
    starts = range(rank * block, len(examples), workers * block)
    indices = (np.arange(start, min(start + block, len(examples))) for start in starts)
    for images, masks in Prefetched(examples.read(indices)):
        predicted, block_loss = network.score(images, masks)
        confusion += confusion_matrix(masks, predicted, classes)
        loss += block_loss
    return confusion, loss

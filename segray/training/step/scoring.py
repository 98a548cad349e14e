"""Scoring: one worker's contribution to the metrics of the validation set."""

import math

import numpy as np

from segray.pixels.metrics import Confusion, confusion_matrix
from segray.training.data.crops import WindowedExamples
from segray.training.data.examples import DecodedExamples, StreamedExamples
from segray.training.data.prefetch import Prefetched
from segray.training.step.blocks import block_length
from segray.training.step.network import TrainableNetwork


def score_share(
    network: TrainableNetwork,
    examples: DecodedExamples | StreamedExamples | WindowedExamples,
    rank: int,
    workers: int,
) -> tuple[Confusion, float]:
    """Predict this worker's share of the examples; each example is in exactly one share.

    Args:
        network: the network, equal on all workers.
        examples: the whole validation set.
        rank: the rank of this worker, from 0.
        workers: the number of workers.

    Returns:
        The confusion matrix, int64 [C, C], rows = ground truth, and the summed cross-entropy, both
        over labelled pixels only. The sums over all shares are those of the whole set.
    """
    classes = network.model.output_shape[-1]
    confusion = np.zeros((classes, classes), dtype=np.int64)
    loss = 0.0
    # Shares consist of whole blocks, not of single images: see `segray.training.step.blocks`.
    block = block_length(math.prod(network.model.input_shape[1:3]))
    starts = range(rank * block, len(examples), workers * block)
    indices = (np.arange(start, min(start + block, len(examples))) for start in starts)
    for images, masks in Prefetched(examples.read(indices)):
        predicted, block_loss = network.score(images, masks)
        confusion += confusion_matrix(masks, predicted, classes)
        loss += block_loss
    return confusion, loss

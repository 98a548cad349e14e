"""Losses: what training makes small, exact over a global batch that several replicas share.

Each replica returns its own part of the loss, and the parts of all replicas add up to the loss of
the global batch; so do their gradients. Ignored pixels are in no sum.
"""

import tensorflow as tf

from segray.pixels.labels import IGNORED
from segray.training.config import Loss

# Lin et al. 2017 (https://arxiv.org/abs/1708.02002) found this exponent to be the best.
_FOCUS = 2.0
# Pixels, so that a class that is not in the batch has a loss of about zero.
_DICE_SMOOTHING = 1.0


def replica_loss(
    loss: Loss,
    logits: tf.Tensor,
    masks: tf.Tensor,
    class_weights: tf.Tensor,
    dice_weight: float,
    label_smoothing: float,
) -> tf.Tensor:
    """This replica's part of the loss of the global batch; all replicas have to call it.

    Args:
        loss: ``ce``: cross-entropy, averaged over the labelled pixels by the weights of their
            classes. ``focal``: the same with each pixel's loss times (1 - p)², p the probability
            of the true class (https://arxiv.org/abs/1708.02002). ``ce+dice``: cross-entropy plus
            `dice_weight` times the soft Dice loss (https://arxiv.org/abs/1606.04797) of the
            classes that occur in the global batch.
        logits: float32 [B, S, S, C].
        masks: uint8 [B, S, S] of class ids or `IGNORED`.
        class_weights: float32 [C], of the cross-entropy.
        dice_weight: of the Dice loss.
        label_smoothing: share of the target that all classes get equally, 0 to 1.

    Returns:
        float32 [].
    """
    classes = logits.shape[-1]
    labelled = masks != IGNORED
    truth = tf.where(labelled, tf.cast(masks, tf.int32), 0)
    targets = tf.one_hot(truth, classes)
    smooth = targets * (1 - label_smoothing) + label_smoothing / classes
    losses = tf.nn.softmax_cross_entropy_with_logits(labels=smooth, logits=logits)
    probabilities = tf.nn.softmax(logits)
    if loss == "focal":
        losses *= (1 - tf.reduce_sum(targets * probabilities, axis=-1)) ** _FOCUS
    weights = tf.where(labelled, tf.gather(class_weights, truth), 0.0)
    part = tf.math.divide_no_nan(
        tf.reduce_sum(losses * weights), sum_replicas(tf.reduce_sum(weights))
    )
    if loss == "ce+dice":
        part += dice_weight * _dice_part(probabilities, targets, labelled)
    return part


def _dice_part(probabilities: tf.Tensor, targets: tf.Tensor, labelled: tf.Tensor) -> tf.Tensor:
    counted = tf.cast(labelled, tf.float32)[..., None]
    probabilities, targets = probabilities * counted, targets * counted
    # Dice is no sum over pixels: each replica takes the whole of it, from the sums over all
    # replicas, and returns its equal share.
    sums = sum_replicas(
        tf.stack(
            [
                tf.reduce_sum(probabilities * targets, axis=[0, 1, 2]),
                tf.reduce_sum(probabilities, axis=[0, 1, 2]),
                tf.reduce_sum(targets, axis=[0, 1, 2]),
            ]
        )
    )
    dice = (2 * sums[0] + _DICE_SMOOTHING) / (sums[1] + sums[2] + _DICE_SMOOTHING)
    present = tf.cast(sums[2] > 0, tf.float32)
    mean = tf.math.divide_no_nan(tf.reduce_sum((1 - dice) * present), tf.reduce_sum(present))
    return mean / tf.cast(tf.distribute.get_replica_context().num_replicas_in_sync, tf.float32)


def summed_cross_entropy(logits: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """The plain cross-entropy summed over the labelled pixels, float32 []."""
    labelled = masks != IGNORED
    truth = tf.where(labelled, tf.cast(masks, tf.int32), 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=truth, logits=logits)
    return tf.reduce_sum(tf.where(labelled, losses, 0.0))


def sum_replicas(value: tf.Tensor) -> tf.Tensor:
    """The sum of a value over all replicas, which all of them get."""
    # A function's own argument is on no device, and the all-reduce wants one: hence the identity.
    return tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, tf.identity(value)
    )

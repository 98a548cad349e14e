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
# Pixels a side of an image that the Lovász loss takes, about.
_LOVASZ_SIDE = 128


def replica_loss(
    loss: Loss,
    logits: tf.Tensor,
    masks: tf.Tensor,
    class_weights: tf.Tensor,
    overlap_weight: float,
    label_smoothing: float,
) -> tf.Tensor:
    """This replica's part of the loss of the global batch; all replicas have to call it.

    Args:
        loss: ``ce``: cross-entropy, averaged over the labelled pixels by the weights of their
            classes. ``focal``: the same with each pixel's loss times (1 - p)², p the probability
            of the true class (https://arxiv.org/abs/1708.02002). ``ce+dice``: cross-entropy plus
            `overlap_weight` times the soft Dice loss (https://arxiv.org/abs/1606.04797) of the
            classes that occur in the global batch. ``ce+lovasz``: cross-entropy plus
            `overlap_weight` times the Lovász-Softmax loss (https://arxiv.org/abs/1705.08790),
            which stands for 1 - IoU, of the classes that occur in each image, averaged over the
            images.
        logits: float32 [B, S, S, C].
        masks: uint8 [B, S, S] of class ids or `IGNORED`.
        class_weights: float32 [C], of the cross-entropy.
        overlap_weight: of the Dice or Lovász loss.
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
        part += overlap_weight * _dice_part(probabilities, targets, labelled)
    if loss == "ce+lovasz":
        part += overlap_weight * _lovasz_part(probabilities, targets, labelled)
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


def _lovasz_part(probabilities: tf.Tensor, targets: tf.Tensor, labelled: tf.Tensor) -> tf.Tensor:
    # A regular choice of the pixels is enough, as augmentation moves others there each time, and
    # to sort all pixels of a large image by the error in each class would take as long as the
    # network does.
    step = max(1, labelled.shape[1] // _LOVASZ_SIDE)
    counted = tf.cast(labelled, tf.float32)[:, ::step, ::step, None]
    truth = targets[:, ::step, ::step] * counted
    errors = tf.abs(truth - probabilities[:, ::step, ::step]) * counted
    counted = tf.broadcast_to(counted, tf.shape(truth))
    errors, truth, counted = (_by_class(array) for array in (errors, truth, counted))
    errors, order = tf.nn.top_k(errors, tf.shape(errors)[2])
    truth = tf.gather(truth, order, batch_dims=2)
    counted = tf.gather(counted, order, batch_dims=2)
    # 1 - IoU if this pixel and those of greater errors were wrong, and the others right.
    total = tf.reduce_sum(truth, axis=2, keepdims=True)
    intersection = total - tf.cumsum(truth, axis=2)
    union = total + tf.cumsum(counted - truth, axis=2)
    loss = 1 - tf.math.divide_no_nan(intersection, union)
    growth = loss - tf.pad(loss[:, :, :-1], [[0, 0], [0, 0], [1, 0]])
    losses = tf.reduce_sum(errors * tf.stop_gradient(growth), axis=2)
    present = tf.cast(total[:, :, 0] > 0, tf.float32)
    classes = tf.reduce_sum(present, axis=1)
    images = sum_replicas(tf.reduce_sum(tf.cast(classes > 0, tf.float32)))
    means = tf.math.divide_no_nan(tf.reduce_sum(losses * present, axis=1), classes)
    return tf.math.divide_no_nan(tf.reduce_sum(means), images)


def _by_class(array: tf.Tensor) -> tf.Tensor:
    """From [B, S, S, C] to [B, C, S * S]."""
    _, height, width, classes = array.shape
    return tf.transpose(tf.reshape(array, [-1, height * width, classes]), [0, 2, 1])


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

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
# Of the errors, 0 to 1, in the Lovász loss.
_BINS = 512


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
    counted = tf.cast(labelled, tf.float32)[..., None]
    truth = targets * counted
    errors = tf.abs(truth - probabilities) * counted
    counted = tf.broadcast_to(counted, tf.shape(truth))
    errors, truth, counted = (_by_class(array) for array in (errors, truth, counted))
    total = tf.reduce_sum(truth, axis=2, keepdims=True)
    weights = tf.stop_gradient(_jaccard_growth(errors, truth, counted, total))
    losses = tf.reduce_sum(errors * weights, axis=2)
    present = tf.cast(total[:, :, 0] > 0, tf.float32)
    classes = tf.reduce_sum(present, axis=1)
    images = sum_replicas(tf.reduce_sum(tf.cast(classes > 0, tf.float32)))
    means = tf.math.divide_no_nan(tf.reduce_sum(losses * present, axis=1), classes)
    return tf.math.divide_no_nan(tf.reduce_sum(means), images)


def _jaccard_growth(
    errors: tf.Tensor, truth: tf.Tensor, counted: tf.Tensor, total: tf.Tensor
) -> tf.Tensor:
    """What each pixel adds to 1 - IoU if it is wrong, as are all of greater errors.

    The pixels are counted by the bin of their error and not sorted, which would take a sixth of a
    training step on CPUs. With U the union and I the intersection at a pixel's error, one of the
    class takes 1 / U, and another one, whose addition to U counts, I / U².

    Args:
        errors: float32 [B, C, P] in [0, 1].
        truth: float32 [B, C, P], 1 for a pixel of the class.
        counted: float32 [B, C, P], 0 for a pixel to ignore.
        total: float32 [B, C, 1], the sum of `truth`.

    Returns:
        float32 [B, C, P].
    """
    batch, classes, pixels = tf.unstack(tf.shape(errors))
    rows = tf.reshape(tf.range(batch * classes) * _BINS, [batch, classes, 1])
    bins = tf.cast(tf.minimum((1 - errors) * _BINS, _BINS - 1), tf.int32)
    places = tf.reshape(bins + rows, [-1])
    # Sums of ones are whole numbers, and so the same in whatever order they are added up.
    ones = tf.stack([tf.reshape(truth, [-1]), tf.reshape(counted, [-1])], axis=1)
    sums = tf.math.unsorted_segment_sum(ones, places, batch * classes * _BINS)
    sums = tf.reshape(sums, [batch, classes, _BINS, 2])
    table = tf.concat([tf.cumsum(sums, axis=2, exclusive=True), sums], axis=3)
    found = tf.gather(tf.reshape(table, [-1, 4]), places)
    before_class, before, in_class, in_bin = tf.unstack(
        tf.reshape(found, [batch, classes, pixels, 4]), axis=3
    )
    # Within a bin the errors are taken to lie evenly, so that nothing jumps at its ends.
    share = (1 - errors) * _BINS - tf.cast(bins, tf.float32)
    of_class, of_all = before_class + share * in_class, before + share * in_bin
    union = tf.maximum(total + of_all - of_class, 1.0)
    return truth / union + (counted - truth) * (total - of_class) / union**2


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

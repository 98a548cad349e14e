"""Losses, exact over a global batch that is sharded across replicas.

Each replica returns its own contribution. The contributions of all replicas add up to the loss of
the global batch, and so do their gradients. Ignored pixels do not enter any sum.
"""

from collections.abc import Sequence

import tensorflow as tf

from segray.pixels.labels import IGNORED
from segray.training.config import Loss

# Gamma of the focal loss; Lin et al. 2017 (https://arxiv.org/abs/1708.02002) found 2 to be best.
_FOCUS = 2.0
# In pixels; gives a class that is absent from the batch a loss of about zero.
_DICE_SMOOTHING = 1.0
# The number of histogram bins of the errors, 0 to 1, in the Lovász loss.
_BINS = 512


def replica_loss(
    loss: Loss,
    logits: Sequence[tf.Tensor],
    masks: Sequence[tf.Tensor],
    class_weights: tf.Tensor,
    overlap_weight: float,
    label_smoothing: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute this replica's contribution to the loss of the global batch.

    All replicas have to call it, because it sums over them.

    Args:
        loss: ``ce``: cross-entropy, averaged over the labelled pixels with the weights of their
            classes. ``focal``: the same with each pixel's loss times (1 - p)², where p is the
            probability of the true class (https://arxiv.org/abs/1708.02002). ``ce+dice``:
            cross-entropy plus `overlap_weight` times the soft Dice loss
            (https://arxiv.org/abs/1606.04797) of the classes present in the global batch.
            ``ce+lovasz``: cross-entropy plus `overlap_weight` times the Lovász-Softmax loss
            (https://arxiv.org/abs/1705.08790), a surrogate of 1 - IoU, of the classes present in
            each image, averaged over the images.
        logits: float32 [b, H, W, C] of each micro-batch of this replica's share.
        masks: uint8 [b, H, W] of class ids or `IGNORED`, of each micro-batch.
        class_weights: float32 [C], the weights of the classes in the cross-entropy.
        overlap_weight: the weight of the Dice or Lovász term.
        label_smoothing: the share of the target that is spread evenly over all classes, 0 to 1.

    Returns:
        The contribution, float32 []; and the plain cross-entropy summed over this replica's
        labelled pixels, float32 [], for the record.
    """
    # The denominators depend on the masks only, so no micro-batch waits for another's logits.
    weights = [_weigh(mask, class_weights) for mask in masks]
    images = [tf.reduce_any(mask != IGNORED, axis=[1, 2]) for mask in masks]
    worth = [
        tf.stack([tf.reduce_sum(weight), tf.math.count_nonzero(labelled, dtype=tf.float32)])
        for weight, labelled in zip(weights, images, strict=True)
    ]
    weight_total, image_total = tf.unstack(sum_replicas(tf.add_n(worth)))
    losses, plain, dice_sums = [], [], []
    for part_logits, mask, weight in zip(logits, masks, weights, strict=True):
        labelled, truth = _read(mask)
        targets = tf.one_hot(truth, part_logits.shape[-1])
        # The softmax is computed once for all terms; on CPUs it is a considerable part of a loss.
        logarithms = tf.nn.log_softmax(part_logits)
        probabilities = tf.exp(logarithms)
        entropy = -tf.reduce_sum(targets * logarithms, axis=-1)
        plain.append(tf.reduce_sum(tf.where(labelled, entropy, 0.0)))
        if label_smoothing:
            even = -tf.reduce_mean(logarithms, axis=-1)
            entropy = (1 - label_smoothing) * entropy + label_smoothing * even
        if loss == "focal":
            entropy *= (1 - tf.reduce_sum(targets * probabilities, axis=-1)) ** _FOCUS
        losses.append(tf.math.divide_no_nan(tf.reduce_sum(entropy * weight), weight_total))
        if loss == "ce+lovasz":
            overlap = _lovasz_sum(probabilities, targets, labelled)
            losses.append(overlap_weight * tf.math.divide_no_nan(overlap, image_total))
        if loss == "ce+dice":
            dice_sums.append(_sum_for_dice(probabilities, targets, labelled))
    if dice_sums:
        losses.append(overlap_weight * _dice_part(tf.add_n(dice_sums)))
    return tf.add_n(losses), tf.add_n(plain)


def _read(mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the labelled pixels, bool, and their classes, int32; 0 where unlabelled."""
    labelled = mask != IGNORED
    return labelled, tf.where(labelled, tf.cast(mask, tf.int32), 0)


def _weigh(mask: tf.Tensor, class_weights: tf.Tensor) -> tf.Tensor:
    """Return the weight of each pixel, float32 [b, H, W]."""
    labelled, truth = _read(mask)
    return tf.where(labelled, tf.gather(class_weights, truth), 0.0)


def _sum_for_dice(probabilities: tf.Tensor, targets: tf.Tensor, labelled: tf.Tensor) -> tf.Tensor:
    """Sum p over the true pixels of each class, p over all pixels, and the true pixels: [3, C]."""
    counted = tf.cast(labelled, tf.float32)[..., None]
    probabilities, targets = probabilities * counted, targets * counted
    values = (probabilities * targets, probabilities, targets)
    return tf.stack([tf.reduce_sum(value, axis=[0, 1, 2]) for value in values])


def _dice_part(sums: tf.Tensor) -> tf.Tensor:
    # Dice is not a sum over pixels: each replica computes all of it, from sums over all replicas,
    # and returns an equal share.
    sums = sum_replicas(sums)
    dice = (2 * sums[0] + _DICE_SMOOTHING) / (sums[1] + sums[2] + _DICE_SMOOTHING)
    present = tf.cast(sums[2] > 0, tf.float32)
    mean = tf.math.divide_no_nan(tf.reduce_sum((1 - dice) * present), tf.reduce_sum(present))
    return mean / tf.cast(tf.distribute.get_replica_context().num_replicas_in_sync, tf.float32)


def _lovasz_sum(probabilities: tf.Tensor, targets: tf.Tensor, labelled: tf.Tensor) -> tf.Tensor:
    """Return the sum of the Lovász-Softmax losses of the images.

    It is the sum over all pixels of their errors, each times its coefficient from
    `_jaccard_growth`. The pixels are binned by error instead of sorted; sorting would take a sixth
    of a training step on CPUs.
    """
    batch, _, _, classes = tf.unstack(tf.shape(probabilities))
    of_class = targets > 0
    right = tf.where(of_class, probabilities, 1 - probabilities)
    # Each image and class has two rows of bins in descending order of error: one for the pixels of
    # other classes and one for its own pixels. Ignored pixels go into an extra bin after all rows.
    length = 2 * batch * classes * _BINS
    rows = tf.reshape(tf.range(batch * classes), [batch, 1, 1, classes]) * 2
    # NaN goes into the last bin; the cross-entropy is NaN as well and is reported.
    bins = tf.cast(tf.where(right < 1, right * _BINS, _BINS - 1.0), tf.int32)
    places = (rows + tf.cast(of_class, tf.int32)) * _BINS + bins
    places = tf.where(labelled[..., None], places, length)
    counts = tf.math.bincount(tf.reshape(places, [-1]), minlength=length + 1, maxlength=length + 1)
    counts = tf.reshape(counts[:length], [batch, classes, 2, _BINS])
    growth = _jaccard_growth(tf.cast(counts, tf.float32))

    present = tf.cast(tf.reduce_sum(counts[:, :, 1], axis=-1) > 0, tf.float32)
    occurring = tf.reduce_sum(present, axis=1, keepdims=True)
    growth *= tf.math.divide_no_nan(present, occurring)[:, :, None, None]

    # The error is p for a pixel of another class, and 1 - p for one of this class.
    slopes = tf.concat([tf.reshape(growth * [[1.0], [-1.0]], [-1]), [0.0]], axis=0)
    ones = tf.reduce_sum(growth[:, :, 1] * tf.cast(counts[:, :, 1], tf.float32))
    return ones + tf.reduce_sum(tf.stop_gradient(tf.gather(slopes, places)) * probabilities)


def _jaccard_growth(counts: tf.Tensor) -> tf.Tensor:
    """Compute the gradient of the Lovász extension of 1 - IoU with respect to each binned error.

    With U the union and I the intersection so far, in descending order of error, a pixel of the
    class contributes 1 / U, and a pixel of another class, by which the union grows, I / U². Within
    a bin, U² is the product of the unions before and after it. The pixels of a bin, if all are of
    one kind, then contribute together exactly what they would one by one.

    Args:
        counts: float32 [B, C, 2, bins], the numbers of pixels of other classes and of the class in
            each bin, in descending order of error.

    Returns:
        float32 [B, C, 2, bins], in the same order.
    """
    after = tf.cumsum(counts, axis=-1)
    before = after - counts
    total = after[:, :, 1, -1:]
    unions = tf.maximum((total + before[:, :, 0]) * (total + after[:, :, 0]), 1.0)
    intersection = total - (before[:, :, 1] + after[:, :, 1]) / 2
    return tf.stack([intersection / unions, tf.math.rsqrt(unions)], axis=2)


def summed_cross_entropy(logits: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Return the plain cross-entropy summed over the labelled pixels, float32 []."""
    labelled, truth = _read(masks)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=truth, logits=logits)
    return tf.reduce_sum(tf.where(labelled, losses, 0.0))


def sum_replicas(value: tf.Tensor) -> tf.Tensor:
    """Sum a value over all replicas; all of them get the sum."""
    # The all-reduce needs a tensor on a device, which a function's own argument is not: hence the
    # identity.
    return tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, tf.identity(value)
    )

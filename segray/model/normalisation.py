"""Batch normalisation over all replicas of a training run, in as few messages as can be."""

from typing import Any

import keras
import tensorflow as tf


# It has the name of what it stands in for, by which Keras stores and finds its weights.
@keras.saving.register_keras_serializable("segray")
class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """`keras.layers.BatchNormalization` over the global batch that replicas share.

    Keras' own, synchronised, asks the replicas for three sums one after the other, and in the
    gradient once more; each is a message that all wait for. Here it is one each way. And it takes
    the variance as the mean of the squares less the square of the mean, which loses digits where
    the mean is large. Here it is the mean of the replicas' own variances, and what the squares give
    for the replicas' means, as deviations from the running mean, which all of them know: once that
    is near, no digits are lost.

    Args:
        settings: see `keras.layers.BatchNormalization`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "synchronized": True})

    def _moments(self, inputs: tf.Tensor, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
        replica = tf.distribute.get_replica_context()
        if mask is not None or replica is None:
            return super()._moments(inputs, mask)
        mean, variance = tf.nn.moments(inputs, self._reduction_axes)
        running = tf.cast(self.moving_mean, inputs.dtype)
        deviation = mean - running
        count = tf.cast(tf.size(inputs, out_type=tf.int64) // inputs.shape[self.axis], inputs.dtype)
        # What the replicas' own figures are worth: how many values each has.
        shares = [deviation, tf.square(deviation), variance, tf.ones_like(mean)]
        totals = replica.all_reduce(tf.distribute.ReduceOp.SUM, count * tf.stack(shares))
        deviation, square, variance = tf.unstack(totals[:3] / totals[3])
        # The difference of two rounded numbers can be below 0.
        between = tf.maximum(square - tf.square(deviation), 0.0)
        return running + deviation, variance + between

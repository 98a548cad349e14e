"""Batch normalisation over all replicas of a training run, in as few messages as can be."""

from typing import Any

import keras
import tensorflow as tf


class SynchronisedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """`keras.layers.BatchNormalization` over the global batch that replicas share.

    Keras' own, synchronised, asks the replicas for three sums one after the other, and in the
    gradient once more; each is a message that all wait for. Here it is one each way. And it takes
    the variance as the mean of the squares less the square of the mean, which loses digits where
    the mean is large. Here both are of deviations from the running mean, which every replica knows
    and which is near.
    """

    def _moments(self, inputs: tf.Tensor, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
        channels = inputs.shape[self.axis]
        mean, variance = tf.nn.moments(inputs, self._reduction_axes)
        deviation = mean - tf.cast(self.moving_mean, inputs.dtype)
        count = tf.cast(tf.size(inputs) // channels, inputs.dtype)
        shares = [deviation, variance + tf.square(deviation), tf.ones(1, inputs.dtype)]
        totals = count * tf.concat(shares, axis=0)
        replica = tf.distribute.get_replica_context()
        if replica is not None:
            totals = replica.all_reduce(tf.distribute.ReduceOp.SUM, totals)
        deviation, square = totals[:channels] / totals[-1], totals[channels:-1] / totals[-1]
        mean = deviation + tf.cast(self.moving_mean, inputs.dtype)
        # The difference of two rounded numbers can be below 0.
        return mean, tf.maximum(square - tf.square(deviation), 0.0)

"""Batch normalisation over all replicas of a training run, with as few messages as possible."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


# It has the name of the layer that it replaces, by which Keras stores and finds its weights.
@keras.saving.register_keras_serializable("segray")
class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """`keras.layers.BatchNormalization` over the global batch that replicas share.

    Keras' own synchronised layer sums over the replicas three times in the forward pass and three
    times in the gradient, and each sum is a message that all replicas wait for. This layer needs
    one message in each direction.
    Keras' layer also computes the variance as the mean of the squares minus the square of the mean,
    which is imprecise if the mean is large. This layer adds the mean of the replicas' own variances
    and the variance of the replicas' means. The latter is computed from deviations from the running
    mean, which all replicas know; once that is close, no precision is lost. A replica's share may
    consist of several parts, which count as replicas.

    Args:
        settings: see `keras.layers.BatchNormalization`, but without ``renorm``.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise a replica's share of the batch."""
        if not training or not self.trainable or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        return self.normalise([inputs])[0]

    def normalise(self, parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Normalise a replica's share that consists of several parts, in training.

        Args:
            parts: float [b, ...] each, with at least one example.

        Returns:
            The parts, normalised by the moments of the global batch.
        """
        # Outside a layer's call, nothing is cast to the precision of the layer.
        dtype = keras.backend.result_type(parts[0].dtype, "float32")
        parts = [keras.ops.cast(part, dtype) for part in parts]
        mean, variance = self._joint_moments(parts)
        for running, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + value * (1.0 - self.momentum))
        factors = {
            "offset": keras.ops.cast(self.beta, dtype) if self.center else None,
            "scale": keras.ops.cast(self.gamma, dtype) if self.scale else None,
        }
        return [
            keras.ops.cast(
                keras.ops.batch_normalization(
                    part, mean, variance, self.axis, epsilon=self.epsilon, **factors
                ),
                self.compute_dtype,
            )
            for part in parts
        ]

    def _joint_moments(self, parts: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Compute the mean and the variance, [channels] each, over all parts of all replicas."""
        running = keras.ops.cast(self.moving_mean, parts[0].dtype)
        worth = []
        for part in parts:
            axes = [axis for axis in range(len(part.shape)) if axis != self.axis % len(part.shape)]
            mean, variance = tf.nn.moments(part, axes)
            deviation = mean - running
            count = tf.size(part, out_type=tf.int64) // part.shape[self.axis]
            # Weight the statistics of the part by its number of values.
            shares = [deviation, tf.square(deviation), variance, tf.ones_like(mean)]
            worth.append(tf.cast(count, part.dtype) * tf.stack(shares))
        totals = tf.add_n(worth)
        if replica := tf.distribute.get_replica_context():
            totals = replica.all_reduce(tf.distribute.ReduceOp.SUM, totals)
        deviation, square, variance = tf.unstack(totals[:3] / totals[3])
        # Rounding may make the difference negative.
        between = tf.maximum(square - tf.square(deviation), 0.0)
        return running + deviation, variance + between

"""The network in training: one step of learning and one of scoring, over all replicas."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from segray.model.unet import build_unet
from segray.pixels.labels import IGNORED
from segray.pixels.metrics import Confusion


class TrainableNetwork:
    """A U-Net with its optimiser under a distribution strategy.

    The loss of a step is the mean cross-entropy over the labelled pixels of the *global* batch:
    each replica divides its own sum by the pixels of all, and the gradients are summed. So the
    step is the same whatever the number of replicas.

    Args:
        strategy: of this process; each process has one replica.
        classes: C, the number of classes.
        image_size: S, in pixels.
        encoder_weights: see `segray.model.unet.build_unet`.
        learning_rate: of Adam.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        classes: int,
        image_size: int,
        encoder_weights: bytes | None,
        learning_rate: float,
    ) -> None:
        self._strategy = strategy
        with strategy.scope():
            self.model = build_unet(classes, image_size, encoder_weights)
            self.optimizer = keras.optimizers.Adam(learning_rate)
            self.optimizer.build(self.model.trainable_variables)
        images = tf.TensorSpec((None, image_size, image_size, 3), tf.uint8)
        masks = tf.TensorSpec((None, image_size, image_size), tf.uint8)
        flips = tf.TensorSpec((None,), tf.bool)
        self._train = self._compile(self._train_replica, images, masks, flips)
        self._score = self._compile(self._score_replica, images, masks)
        self._sum = self._compile(
            lambda counts, loss: (_sum_replicas(counts), _sum_replicas(loss)),
            tf.TensorSpec((classes, classes), tf.int64),
            tf.TensorSpec((), tf.float64),
        )

    def train(
        self,
        images: npt.NDArray[np.uint8],
        masks: npt.NDArray[np.uint8],
        flips: npt.NDArray[np.bool_],
    ) -> tuple[float, float]:
        """Take one step; every replica calls it with its own share of the global batch.

        Args:
            images: uint8 [b, S, S, 3] RGB.
            masks: uint8 [b, S, S] of class ids or `IGNORED`.
            flips: bool [b], which of them to mirror left to right.

        Returns:
            The summed cross-entropy of the global batch and its number of labelled pixels.
        """
        loss, pixels = self._train(images, masks, flips).numpy()
        return float(loss), float(pixels)

    def score(
        self, images: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.uint8], float]:
        """Predict, on this replica alone.

        Args:
            images: uint8 [b, S, S, 3] RGB.
            masks: uint8 [b, S, S] of class ids or `IGNORED`.

        Returns:
            The predicted class ids, uint8 [b, S, S], and the summed cross-entropy.
        """
        predicted, loss = self._score(images, masks)
        return predicted.numpy(), float(loss)

    def sum_over_replicas(self, confusion: Confusion, loss: float) -> tuple[Confusion, float]:
        """Add up what each replica has counted; every replica calls it and gets the totals."""
        total, summed = self._sum(confusion, np.float64(loss))
        return total.numpy(), float(summed)

    def _compile(self, replica_function: Any, *signature: tf.TensorSpec) -> Any:
        @tf.function(input_signature=signature)
        def run(*inputs: tf.Tensor) -> Any:
            return self._strategy.run(replica_function, args=inputs)

        return run

    def _train_replica(self, images: tf.Tensor, masks: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
        images = tf.where(flips[:, None, None, None], images[:, :, ::-1], images)
        masks = tf.where(flips[:, None, None], masks[:, :, ::-1], masks)
        labelled = tf.math.count_nonzero(masks != IGNORED, dtype=tf.float32)
        pixels = _sum_replicas(labelled)
        with tf.GradientTape() as tape:
            summed = _summed_cross_entropy(self.model(images, training=True), masks)
            loss = summed / tf.maximum(pixels, 1)
        variables = self.model.trainable_variables
        # `apply` sums the gradients over the replicas before it takes the step.
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return tf.stack([_sum_replicas(summed), pixels])

    def _score_replica(self, images: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self.model(images, training=False)
        predicted = tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.uint8)
        return predicted, tf.cast(_summed_cross_entropy(logits, masks), tf.float64)


def _summed_cross_entropy(logits: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    labelled = masks != IGNORED
    truth = tf.where(labelled, tf.cast(masks, tf.int32), 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=truth, logits=logits)
    return tf.reduce_sum(tf.where(labelled, losses, 0))


def _sum_replicas(value: tf.Tensor) -> tf.Tensor:
    # A function's own argument is on no device, and the all-reduce wants one: hence the identity.
    return tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, tf.identity(value)
    )

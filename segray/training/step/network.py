"""The network in training: the training step and the scoring step, over all replicas."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from segray.model.unet import build_unet
from segray.pixels.labels import IGNORED
from segray.pixels.metrics import Confusion
from segray.training.config import TrainConfig
from segray.training.data.batches import Batch
from segray.training.data.transforms import degrade, recolour, warp
from segray.training.step.blocks import block_length, fill_block
from segray.training.step.losses import replica_loss, sum_replicas, summed_cross_entropy
from segray.training.step.optimizers import make_optimizers
from segray.training.step.parts import predict_block, split_batch, train_parts


class TrainableNetwork:
    """A U-Net and its optimizers under a distribution strategy.

    The loss of a step is that of the *global* batch: each replica returns its own contribution, and
    the gradients are summed. A step is therefore the same for any number of replicas.

    Args:
        strategy: the distribution strategy of this process; each process has one replica.
        config: the configuration of the run.
        encoder_weights: see `segray.model.unet.build_unet`.
        class_weights: float32 [C], the weights of the classes in the cross-entropy.
        make: creates the optimizers, as `segray.training.step.optimizers.make_optimizers` does.
        parts: the number of micro-batches that each share of a batch is divided into
            (`segray.training.step.parts`); at most the number of images in a share.

    Attributes:
        model: the U-Net.
        optimizers: one for the decoder's inner kernels, one for the rest of the decoder, and one
            for the encoder.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        config: TrainConfig,
        encoder_weights: bytes | None,
        class_weights: npt.NDArray[np.float32],
        make: Callable[[TrainConfig], list[keras.Optimizer]] = make_optimizers,
        parts: int = 1,
    ) -> None:
        self._strategy, self._config, self._parts = strategy, config, parts
        self._class_weights = class_weights
        classes, shape = len(config.labels), config.frame.shape
        self._block = block_length(config.frame.pixels)
        with strategy.scope():
            self.model = build_unet(
                config.architecture, encoder_weights, config.batch_norm_momentum
            )
            self._encoder = self.model.get_layer("encoder")
            self._pretrained = encoder_weights is not None
            self._set_encoder_trainable(False)
            self._variables = _split(self.model.trainable_variables)
            self._set_encoder_trainable(True)
            self._variables.append(self._encoder.trainable_variables)
            self.optimizers = make(config)
            for optimizer, variables in zip(self.optimizers, self._variables, strict=True):
                optimizer.build(variables)
        self._steps: dict[bool, Any] = {}
        self._score = self._compile(
            self._score_replica,
            tf.TensorSpec((self._block, *shape, 3), tf.uint8),
            tf.TensorSpec((self._block, *shape), tf.uint8),
        )
        self._sum_scores = self._compile(
            lambda counts, loss: (sum_replicas(counts), sum_replicas(loss)),
            tf.TensorSpec((classes, classes), tf.int64),
            tf.TensorSpec((), tf.float64),
        )
        self._sum = self._compile(sum_replicas, tf.TensorSpec((), tf.int64))

    def compile(self, fine: bool) -> None:
        """Compile the training step with the encoder trained (`fine`) or frozen; this is slow.

        `train` would compile it itself, but while other replicas wait for this one.
        """
        if fine not in self._steps:
            self._set_encoder_trainable(fine)
            step = self._compile_step(fine)
            step.get_concrete_function()
            self._steps[fine] = step

    def place(self, batch: Batch) -> Batch:
        """Copy a batch to the device that computes on it, the GPU if one is used.

        If another thread does this ahead of the step, the GPU does not wait for the copy.
        """
        if not self._config.use_gpu:
            return batch
        with tf.device("/GPU:0"):
            return Batch(*(tf.identity(column) for column in vars(batch).values()))

    def train(self, batch: Batch, rates: tuple[float, float]) -> tf.Tensor:
        """Take one training step; every replica calls it with its own share of the global batch.

        Args:
            batch: this replica's share.
            rates: the learning rates of the decoder and the encoder; at 0 the encoder is frozen.

        Returns:
            float32 [2]: the summed cross-entropy of the global batch and the number of its labelled
            pixels. On a GPU the step may still be running.
        """
        fine = rates[1] > 0
        self.compile(fine)
        for optimizer, rate in zip(self.optimizers, (rates[0], *rates), strict=True):
            optimizer.learning_rate.assign(rate)
        return self._steps[fine](
            *(batch.images, batch.masks, batch.warps, batch.colours),
            *(batch.degradations, batch.seeds),
        )

    def score(
        self, images: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.uint8], float]:
        """Predict and score images on this replica alone.

        Args:
            images: uint8 [b, H, W, 3] RGB, predicted in blocks (`segray.training.step.blocks`).
            masks: uint8 [b, H, W] of class ids or `IGNORED`.

        Returns:
            The predicted class ids, uint8 [b, H, W], and the summed cross-entropy.
        """
        blocks, summed = [], 0.0
        for start in range(0, len(images), self._block):
            block = slice(start, start + self._block)
            # The logits, which are large, are not kept.
            predicted, loss = self._score(
                fill_block(images[block], self._block, 0),
                fill_block(masks[block], self._block, IGNORED),
            )[:2]
            blocks.append(predicted.numpy())
            summed += float(loss)
        return np.concatenate(blocks)[: len(images)], summed

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute the logits of images, float32 [b, H, W, C], on this replica alone.

        Args:
            images: uint8 [b, H, W, 3] RGB, at most a block (`segray.training.step.blocks`).
        """
        masks = np.full((self._block, *images.shape[1:3]), IGNORED, dtype=np.uint8)
        _, _, logits = self._score(fill_block(images, self._block, 0), masks)
        predicted: npt.NDArray[np.float32] = logits.numpy()
        return predicted[: len(images)]

    def sum_scores(self, confusion: Confusion, loss: float) -> tuple[Confusion, float]:
        """Sum the scores of all replicas; every replica calls it and gets the totals."""
        total, summed = self._sum_scores(confusion, np.float64(loss))
        return total.numpy(), float(summed)

    def sum_over_replicas(self, value: int) -> int:
        """Sum one number over all replicas; every replica calls it and gets the total."""
        return int(self._sum(np.int64(value)))

    def _set_encoder_trainable(self, trainable: bool) -> None:
        self._encoder.trainable = trainable
        if self._pretrained:
            # The statistics of ImageNet come from a million images; those of a batch from a few.
            for layer in self._encoder.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False

    def _compile(self, replica_function: Any, *signature: tf.TensorSpec) -> Any:
        @tf.function(input_signature=signature)
        def run(*inputs: tf.Tensor) -> Any:
            return self._strategy.run(replica_function, args=inputs)

        return run

    def _compile_step(self, fine: bool) -> Any:
        shape = self._config.training_frame.shape

        def step(*inputs: tf.Tensor) -> tf.Tensor:
            return self._train_replica(fine, *inputs)

        return self._compile(
            step,
            tf.TensorSpec((None, *shape, 3), tf.uint8),
            tf.TensorSpec((None, *shape), tf.uint8),
            tf.TensorSpec((None, 8), tf.float32),
            tf.TensorSpec((None, 3, 4), tf.float32),
            tf.TensorSpec((None, 2), tf.float32),
            tf.TensorSpec((None, 2), tf.int32),
        )

    def _train_replica(self, fine: bool, *batch: tf.Tensor) -> tf.Tensor:
        config = self._config
        columns = [split_batch(column, self._parts) for column in batch]
        pairs = [self._augment(*part) for part in zip(*columns, strict=True)]
        masks = [mask for _, mask in pairs]
        sets = self._variables if fine else self._variables[:-1]
        with tf.GradientTape() as tape:
            logits = train_parts(self.model, [image for image, _ in pairs])
            loss, summed = replica_loss(
                config.loss,
                logits,
                masks,
                tf.constant(self._class_weights),
                config.overlap_weight,
                config.label_smoothing,
            )
        gradients = tape.gradient(loss, sets)
        used = self.optimizers[: len(sets)]
        for optimizer, gradient, variables in zip(used, gradients, sets, strict=True):
            # `apply` sums the gradients over the replicas before it takes the step.
            optimizer.apply(gradient, variables)
        labelled = [tf.math.count_nonzero(mask != IGNORED, dtype=tf.float32) for mask in masks]
        return sum_replicas(tf.stack([summed, tf.add_n(labelled)]))

    def _augment(
        self,
        images: tf.Tensor,
        masks: tf.Tensor,
        warps: tf.Tensor,
        colours: tf.Tensor,
        degradations: tf.Tensor,
        seeds: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        config, augmentation = self._config, self._config.augmentation
        if augmentation.warps:
            images, masks = warp(images, masks, warps, config.frame.shape, config.samples)
        if augmentation.colour:
            images = recolour(tf.cast(images, tf.float32), colours)
        if augmentation.blur or augmentation.noise:
            images = degrade(tf.cast(images, tf.float32), degradations, seeds, augmentation.blur)
        return images, masks

    def _score_replica(
        self, images: tf.Tensor, masks: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        logits = predict_block(self.model, images, self._config.use_gpu)
        predicted = tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.uint8)
        return predicted, tf.cast(summed_cross_entropy(logits, masks), tf.float64), logits


def _split(decoder: list[keras.Variable]) -> list[list[keras.Variable]]:
    """Split the decoder's variables into its inner convolution kernels and all others.

    The kernel of the output layer counts among the others: its rows are the classes, which are
    independent of each other.
    """

    def is_inner(variable: keras.Variable) -> bool:
        return len(variable.shape) == 4 and not variable.path.startswith("logits/")

    return [[v for v in decoder if is_inner(v)], [v for v in decoder if not is_inner(v)]]

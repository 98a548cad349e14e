"""Micro-batches: on CPUs, each part of a batch passes through the network on its own core.

TensorFlow by itself distributes each layer over the cores, which then wait for each other a
thousand times a step. Micro-batches wait for each other in batch normalisation only.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

import keras
import tensorflow as tf

from segray.model.normalisation import BatchNormalization
from segray.model.unet import split_stages
from segray.training.config import MOST_PARTS


def split_batch(batch: tf.Tensor, parts: int) -> list[tf.Tensor]:
    """Divide a batch [B, ...] into parts whose lengths differ by at most one."""
    length = tf.shape(batch)[0]
    return [batch[i * length // parts : (i + 1) * length // parts] for i in range(parts)]


def train_parts(model: keras.Model, parts: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    """Call a network in training mode on all parts of a batch, as on the whole batch.

    Args:
        model: a network of `segray.model.unet.build_unet`.
        parts: the parts, each uint8 or float32 [b, H, W, 3] RGB in [0, 255], with at least one
            image.

    Returns:
        Logits float32 [b, H, W, C] of each part.
    """
    # Keras would pass each part through the whole network before the next one.
    scale, encoder, decoder = split_stages(model)
    *skips, x = _encode(encoder, _call(scale, parts))
    for layer in decoder:
        x = _call(layer, x, *([skips.pop()] if isinstance(layer, keras.layers.Concatenate) else []))
    return x


def predict_block(model: keras.Model, block: tf.Tensor, use_gpu: bool) -> tf.Tensor:
    """Compute the logits of a block (`segray.training.step.blocks`), float32 [B, H, W, C].

    On a CPU it is predicted in parts, whose number does not depend on the number of cores; on a GPU
    as a whole.

    Args:
        model: a network of `segray.model.unet.build_unet`.
        block: uint8 [B, H, W, 3] RGB; B must be known when the graph is traced.
        use_gpu: True if it is predicted on a GPU.
    """
    parts = 1 if use_gpu else min(block.shape[0], MOST_PARTS)
    return tf.concat([model(part, training=False) for part in split_batch(block, parts)], axis=0)


def _encode(encoder: keras.Model, parts: Sequence[tf.Tensor]) -> list[Sequence[tf.Tensor]]:
    """Compute each output of the encoder for each part."""
    steps = encoder.operations
    taken = {step: [id(tensor) for tensor in keras.tree.flatten(step.input)] for step in steps}
    uses = Counter(itertools.chain(*taken.values(), map(id, encoder.outputs)))
    frozen = {
        taken[step][0]: step
        for step in steps
        if isinstance(step, keras.layers.BatchNormalization)
        and not step.trainable
        # In bfloat16 a folded kernel would lose precision: Keras keeps gamma in float32.
        and step.compute_dtype != "bfloat16"
    }
    values: dict[int, Sequence[tf.Tensor]] = {id(encoder.inputs[0]): parts}
    for step in steps:
        made = id(step.output)
        if made in values:
            continue
        inputs = [values[tensor] for tensor in taken[step]]
        if made in frozen and uses[made] == 1 and _is_plain_convolution(step):
            values[id(frozen[made].output)] = _convolve(step, frozen[made], *inputs)
        else:
            values[made] = _call(_as_layer(step), *inputs)
    return [values[id(tensor)] for tensor in encoder.outputs]


def _as_layer(operation: keras.Operation) -> keras.Layer:
    """Return an operation of a network as a layer, which some, such as ``x + 3``, are not."""
    if isinstance(operation, keras.Layer):
        return operation
    return keras.Model(operation.input, operation.output)


def _is_plain_convolution(layer: keras.Layer) -> bool:
    """Return True for a convolution without bias and activation."""
    return (
        isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
        and not layer.use_bias
        and layer.activation is keras.activations.linear
        and tuple(layer.dilation_rate) == (1, 1)
    )


def _convolve(
    layer: keras.Layer, norm: keras.layers.BatchNormalization, parts: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Apply a convolution and the frozen batch normalisation after it, folded into its kernel.

    A pass over a layer's output is expensive on a CPU. Folding saves two passes, and one of three
    in the gradient.
    """
    mean, variance, gamma, beta = (
        tf.convert_to_tensor(variable)
        for variable in (norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta)
    )
    factor = gamma * tf.math.rsqrt(variance + norm.epsilon)
    offset = tf.cast(beta - mean * factor, layer.compute_dtype)
    kernel, padding = tf.convert_to_tensor(layer.kernel), layer.padding.upper()
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = tf.cast(kernel * factor[:, None], layer.compute_dtype)
        strides = (1, *layer.strides, 1)
        made = [tf.nn.depthwise_conv2d(part, kernel, strides, padding) for part in parts]
    else:
        kernel = tf.cast(kernel * factor, layer.compute_dtype)
        made = [tf.nn.conv2d(part, kernel, layer.strides, padding) for part in parts]
    return [tf.nn.bias_add(part, offset) for part in made]


def _call(layer: keras.Layer, *inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Call a layer on all parts; all of its inputs are divided alike."""
    if isinstance(layer, BatchNormalization) and layer.trainable:
        return layer.normalise(*inputs)
    if len(inputs) == 1:
        return [layer(part) for part in inputs[0]]
    return [layer(list(part)) for part in zip(*inputs, strict=True)]

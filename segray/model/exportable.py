"""Layers that cannot be exported to ONNX, replaced by others that compute the same.

tf2onnx knows neither the grouped convolutions of Keras nor the operator of its GELU. And it writes
a dense layer over the pixels of an image as a multiplication of matrices whose shape is known only
at run time, which the check of a bundle's graph could not count (`segray.model.graph`).
"""

import math

import keras


def make_exportable(network: keras.Model) -> keras.Model:
    """Replace the layers of a network that cannot be exported.

    Args:
        network: a network; layers of the networks in it are left as they are.

    Returns:
        A network with the same values of all weights, some of which have another shape; or the
        given one if all of its layers can be exported.
    """
    replaced = {layer.name: new for layer in network.layers if (new := _replace(layer))}
    if not replaced:
        return network
    copy = keras.models.clone_model(
        network,
        clone_function=lambda layer: (
            replaced.get(layer.name) or type(layer).from_config(layer.get_config())
        ),
    )
    for old, new in zip(network.weights, copy.weights, strict=True):
        new.assign(keras.ops.reshape(old, new.shape))
    return copy


def _replace(layer: keras.Layer) -> keras.Layer | None:
    """Return a layer to use instead of one that cannot be exported, None for any other."""
    if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1:
        # All grouped convolutions of the encoders have a filter for each channel.
        return keras.layers.DepthwiseConv2D(
            layer.kernel_size, layer.strides, layer.padding, name=layer.name
        )
    if isinstance(layer, keras.layers.Dense):
        return keras.layers.Conv2D(layer.units, 1, name=layer.name)
    if isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.gelu:
        return keras.layers.Activation(_gelu, name=layer.name)
    return None


def _gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    """Multiply each value by the share of a normal distribution below it.

    https://arxiv.org/abs/1606.08415, equation 1, by the error function.
    """
    return 0.5 * x * (1.0 + keras.ops.erf(x / math.sqrt(2.0)))

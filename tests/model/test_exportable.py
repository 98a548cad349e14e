"""Layers that the exporter to ONNX lacks, replaced by others."""

import keras
import numpy as np

from segray.model.exportable import make_exportable


def test_the_replaced_layers_compute_the_same_with_the_same_weights() -> None:
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(4, 7, padding="same", groups=4, name="grouped")(images)
    x = keras.layers.Dense(16, name="dense")(keras.layers.LayerNormalization()(x))
    x = keras.layers.Activation("gelu", name="gelu")(x)
    network = keras.Model(images, images + keras.layers.Dense(4, name="last")(x))
    for variable in network.weights:
        variable.assign(keras.random.normal(variable.shape))

    copy = make_exportable(network)

    assert copy.get_layer("grouped").kernel.shape == (7, 7, 4, 1)
    assert copy.get_layer("dense").kernel.shape == (1, 1, 4, 16)
    batch = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    np.testing.assert_allclose(copy(batch), network(batch), rtol=1e-4, atol=1e-4)


def test_a_network_without_such_layers_is_returned_as_it_is() -> None:
    images = keras.Input((8, 8, 4))
    network = keras.Model(images, keras.layers.Conv2D(4, 3)(images))

    assert make_exportable(network) is network

"""What is known of a network without Keras, beside what Keras builds."""

from typing import get_args

import keras
import numpy as np
import pytest

from segray.model.architecture import Architecture, Decoder
from segray.model.counts import count_multiplications, count_weights
from segray.model.encoders import ENCODERS, EncoderName
from segray.model.unet import build_unet
from tests.support import EACH_ENCODER, square


def multiplications(model: keras.Model) -> int:
    """Those of the convolutions of all layers, for one image."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += multiplications(layer)
        elif isinstance(layer, keras.layers.Conv2DTranspose):
            total += int(np.prod(layer.kernel.shape) * np.prod(layer.input.shape[1:3]))
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            total += int(np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3]))
    return total


@pytest.mark.parametrize("decoder", get_args(Decoder))
@pytest.mark.parametrize("classes", [2, 255])
def test_weights_and_multiplications_are_those_of_the_network(
    classes: int, decoder: Decoder
) -> None:
    architecture = square(classes, 64, decoder=decoder)
    network = build_unet(architecture)

    assert count_weights(architecture) == network.count_params()
    assert count_multiplications(architecture) == multiplications(network)


@pytest.mark.parametrize("name", EACH_ENCODER)
def test_those_of_each_encoder_are_known(name: EncoderName) -> None:
    for height, width in ((32, 32), (64, 96)):
        architecture = Architecture(2, height, width, name)
        network = build_unet(architecture)

        assert count_weights(architecture) == network.count_params()
        assert count_multiplications(architecture) == multiplications(network)
        outputs = network.get_layer("encoder").outputs
        assert tuple(output.shape[-1] for output in outputs) == ENCODERS[name].channels

"""Going on from an earlier model: what is kept, and what begins anew."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from segray.errors import InputError
from segray.model.start import open_start
from segray.model.unet import build_unet
from tests.support import IMAGE_SIZE, draw_batch, square


def test_the_same_classes_give_the_same_logits(bundle_uri: str, network: keras.Model) -> None:
    architecture = square(3, IMAGE_SIZE)
    start = open_start(bundle_uri, architecture, ["pet", "background", "border"])
    other = build_unet(architecture, b"")

    start.copy_to(other, ["pet", "background", "border"])

    images = draw_batch(2)
    np.testing.assert_allclose(other(images), network(images), atol=1e-4)


def test_classes_of_the_same_name_keep_their_filters(
    bundle_uri: str, network: keras.Model, lines: list[str]
) -> None:
    """Here they are in another order, with a class that is new, at another resolution."""
    architecture = square(3, 32)
    names = ["border", "cat", "pet"]
    keras.utils.set_random_seed(3)
    other = build_unet(architecture, b"")
    fresh = [values.copy() for values in other.get_layer("logits").get_weights()]

    open_start(bundle_uri, architecture, names).copy_to(other, names)

    images = draw_batch(2)[:, :32, :32]
    same = build_unet(square(3, 32), b"")
    same.set_weights(network.get_weights())
    expected, logits = same(images).numpy(), other(images).numpy()
    np.testing.assert_allclose(logits[..., [0, 2]], expected[..., [2, 0]], atol=1e-4)
    kernel, bias = other.get_layer("logits").get_weights()
    np.testing.assert_array_equal(kernel[:, :, 1], fresh[0][:, :, 1])
    np.testing.assert_array_equal(bias[1], fresh[1][1])
    assert [line for line in lines if "cat" in line]


def test_another_network_is_refused_with_the_flag(bundle_uri: str) -> None:
    for flag, architecture in {
        "--encoder MobileNetV2": square(3, 32, encoder="ResNet50V2"),
        "--decoder slim": square(3, 32, decoder="tutorial"),
        "--input-range -1.0 1.0": square(3, 32, input_range=(0.0, 1.0)),
        "--even-upsampling": replace(square(3, 32), even_upsampling=False),
    }.items():
        with pytest.raises(InputError, match=f" has {flag}, and this training"):
            open_start(bundle_uri, architecture, ["pet"])

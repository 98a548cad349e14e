import io
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from segray.errors import InputError
from segray.model.normalisation import BatchNormalization
from segray.model.unet import build_unet, load_weights_content, weights_content
from tests.support import draw_batch, square


@pytest.fixture(scope="module")
def frozen(encoder_weights: dict[str, bytes]) -> keras.Model:
    return build_unet(square(3, 128, decoder="tutorial"), encoder_weights["new"])


def count(variables: list[keras.Variable]) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def batch_norm_statistics(model: keras.Model) -> list[np.ndarray]:
    return [v.numpy() for v in model.variables if v.name in ("moving_mean", "moving_variance")]


def test_has_the_parameters_of_the_tutorials_network(frozen: keras.Model) -> None:
    assert frozen.count_params() == 6_504_227
    assert count(frozen.trainable_variables) == 4_660_323


@pytest.mark.parametrize("classes", [2, 255])
def test_gives_one_logit_for_each_pixel_and_class(classes: int) -> None:
    network = build_unet(square(classes, 32))

    logits = network(np.zeros((2, 32, 32, 3), np.uint8)).numpy()

    assert logits.shape == (2, 32, 32, classes)
    assert logits.dtype == np.float32


def test_gives_float32_logits_in_mixed_precision_too() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = build_unet(square(2, 32))
    finally:
        keras.config.set_dtype_policy("float32")

    logits = network(np.full((1, 32, 32, 3), 200, np.uint8)).numpy()

    assert network.get_layer("encoder").compute_dtype == "float16"
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_what_is_doubled_in_size_has_no_checkerboard() -> None:
    """Where all that goes into an up-sampling is the same, so is what comes out of it."""
    network = build_unet(square(2, 128))
    doubled = [x for x in network.layers if isinstance(x, keras.layers.Conv2DTranspose)]
    evened = [x for x in network.layers if isinstance(x, keras.layers.AveragePooling2D)]
    assert len(doubled) == len(evened) == 5
    for before, after in zip(doubled, evened, strict=True):
        part = keras.Model(before.input, after.output)
        size, channels = before.input.shape[2:]
        row = np.random.default_rng(0).normal(size=channels).astype(np.float32)
        values = part(np.tile(row, (1, size, size, 1))).numpy()
        # At the edges there are fewer neighbours.
        inner = values[:, 1:-1, 1:-1]
        np.testing.assert_allclose(inner, np.broadcast_to(inner[:, :1, :1], inner.shape), atol=1e-4)
        assert np.ptp(inner[0, 0, 0]) > 0.01


def test_the_tutorials_decoder_is_not_evened_out() -> None:
    """It has the same weights, and gives other logits."""
    even, plain = build_unet(square(2, 64)), build_unet(square(2, 64, even_upsampling=False))
    assert not [x for x in plain.layers if isinstance(x, keras.layers.AveragePooling2D)]
    assert [x.shape for x in plain.weights] == [x.shape for x in even.weights]
    plain.set_weights(even.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    difference = np.abs(plain(images).numpy() - even(images).numpy()).max()
    assert difference > 0.1 * np.abs(plain(images)).max()


@pytest.mark.parametrize("pretrained", [True, False])
def test_batch_norm_that_is_trained_is_that_of_all_replicas(pretrained: bool) -> None:
    network = build_unet(square(2, 32), b"" if pretrained else None, momentum=0.7)
    encoder = network.get_layer("encoder")

    def layers(model: keras.Model) -> list[keras.Layer]:
        kinds = keras.layers.BatchNormalization
        return [layer for layer in model.layers if isinstance(layer, kinds)]

    assert len(layers(network)) == 4
    assert len(layers(encoder)) == 50
    for layer in layers(network) + ([] if pretrained else layers(encoder)):
        assert type(layer) is BatchNormalization
        assert layer.trainable
        assert layer.momentum == 0.7
    assert encoder.trainable is not pretrained


def test_weights_do_not_know_whether_the_encoder_was_trained() -> None:
    network, other = build_unet(square(2, 32), b""), build_unet(square(2, 32))
    load_weights_content(other, weights_content(network))
    for one, another in zip(network.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, another)


@pytest.mark.parametrize("kind", ["new", "legacy"])
def test_takes_encoder_weights_of_both_keras_formats(
    kind: str, encoder_weights: dict[str, bytes], mobilenet: keras.Model
) -> None:
    encoder = build_unet(square(2, 32), encoder_weights[kind]).get_layer("encoder")

    layers = [layer for layer in encoder.layers if layer.weights]
    assert len(layers) > 80
    for layer in layers:
        expected = mobilenet.get_layer(layer.name).get_weights()
        for value, weight in zip(layer.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(value, weight)


def test_encoder_sees_pixels_scaled_to_minus_one_to_one(frozen: keras.Model) -> None:
    images = draw_batch(2).repeat(2, axis=1).repeat(2, axis=2)
    images[0, :64], images[1, :64] = 0, 255
    concatenations = [x for x in frozen.layers if isinstance(x, keras.layers.Concatenate)]
    skips = keras.Model(frozen.input, [layer.input[1] for layer in concatenations])

    expected = frozen.get_layer("encoder")(images.astype(np.float32) / 127.5 - 1)[3::-1]

    for skip, values in zip(skips(images), expected, strict=True):
        np.testing.assert_allclose(skip, values, atol=1e-4)


def test_statistics_of_a_given_encoder_stay_as_they_are(frozen: keras.Model) -> None:
    encoder = frozen.get_layer("encoder")
    before, all_before = batch_norm_statistics(encoder), batch_norm_statistics(frozen)

    frozen(np.full((2, 128, 128, 3), 255, np.uint8), training=True)

    assert len(before) > 80
    for value, old in zip(batch_norm_statistics(encoder), before, strict=True):
        np.testing.assert_array_equal(value, old)
    moved = [
        not np.array_equal(value, old)
        for value, old in zip(batch_norm_statistics(frozen), all_before, strict=True)
    ]
    assert sum(moved) == 8, "the mean and variance of each of the decoder's four"


def test_without_weights_every_part_learns() -> None:
    keras.utils.set_random_seed(0)
    network = build_unet(square(3, 64, decoder="tutorial"))
    variables = network.trainable_variables
    statistics = batch_norm_statistics(network)

    with tf.GradientTape() as tape:
        logits = network(draw_batch(4), training=True)
        loss = tf.reduce_mean(tf.square(logits - 1))
    gradients = tape.gradient(loss, variables)

    assert count(variables) == 6_504_227 - sum(value.size for value in statistics)
    for variable, gradient in zip(variables, gradients, strict=True):
        assert np.isfinite(gradient).all(), variable.path
        assert np.any(gradient), variable.path
    for value, old in zip(batch_norm_statistics(network), statistics, strict=True):
        assert not np.array_equal(value, old)


def hdf5_without_weights() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w"):
        pass
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [b"<html>\nNot found\n</html>", hdf5_without_weights()], ids=len
)
def test_refuses_a_file_without_weights(content: bytes) -> None:
    with pytest.raises(InputError, match=r"^--encoder-weights: the file .*[^\n]*$"):
        build_unet(square(2, 32), content)


def test_refuses_a_truncated_weights_file(encoder_weights: dict[str, bytes]) -> None:
    with pytest.raises(InputError, match=r"^--encoder-weights: [^\n]*$"):
        build_unet(square(2, 32), encoder_weights["new"][:1_000_000])


def test_refuses_the_weights_of_another_network(tmp_path: Path) -> None:
    narrow = keras.applications.MobileNetV2(
        (96, 96, 3), alpha=0.35, weights=None, include_top=False
    )
    narrow.save_weights(tmp_path / "narrow.weights.h5")

    with pytest.raises(
        InputError, match=r"^--encoder-weights: [^\n]* a MobileNetV2 without its top"
    ):
        build_unet(square(2, 32), (tmp_path / "narrow.weights.h5").read_bytes())

"""Each encoder: built, trained for a step, saved, and loaded by both engines."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from segray.model.architecture import Architecture
from segray.model.bundle import ONNX, WEIGHTS, open_bundle, write_bundle
from segray.model.encoders import ENCODERS, EncoderName
from segray.model.predictor import load_predictor
from segray.model.unet import build_unet
from segray.pixels.framing import Frame
from segray.pixels.labels import Labels
from segray.training.step.parts import split_batch, train_parts
from tests.support import EACH_ENCODER, draw_picture

HEIGHT, WIDTH = 64, 32
LABELS = Labels(("pet", "background"), (1, 2))


def draw(count: int) -> np.ndarray:
    return np.stack([draw_picture(HEIGHT, WIDTH, seed) for seed in range(count)])


@pytest.mark.parametrize("name", EACH_ENCODER)
def test_learns_and_both_engines_agree(name: EncoderName, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    own = ENCODERS[name]
    architecture = Architecture(2, HEIGHT, WIDTH, name, input_range=own.input_range)
    network = build_unet(architecture)
    variables = network.trainable_variables

    @tf.function
    def learn(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = tf.concat(train_parts(network, split_batch(images, 2)), axis=0)
            loss = tf.reduce_mean(tf.square(logits - tf.constant([1.0, -1.0])))
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.01 * gradient)
        return loss, tf.stack([tf.reduce_any(gradient != 0) for gradient in gradients])

    images = tf.constant(draw(4))
    losses, learning = zip(*(learn(images) for _ in range(6)), strict=True)
    assert losses[-1] < losses[0]
    # Where batch normalisation takes an offset away again, a bias has no gradient.
    assert np.mean(learning[-1]) > 0.98

    write_bundle(str(tmp_path), network, architecture, LABELS, {}, Frame(HEIGHT, WIDTH))
    bundle = open_bundle(str(tmp_path), [WEIGHTS, ONNX])
    assert bundle.architecture == architecture
    one, other = (
        load_predictor(bundle, engine).predict(draw(3)) for engine in ("tensorflow", "onnx")
    )
    assert np.std(one) > 1e-3
    np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(one).max())


def test_imagenets_mean_becomes_zero_and_its_deviation_one() -> None:
    network = build_unet(Architecture(2, 32, 32, "EfficientNetV2B0", input_range=None))
    scale = network.get_layer("scale")
    mean = 255 * np.array([0.485, 0.456, 0.406])
    deviation = 255 * np.array([0.229, 0.224, 0.225])

    pixels = np.stack([mean, mean + deviation]).astype(np.float32)[None, None]

    np.testing.assert_allclose(scale(pixels)[0, 0], [[0] * 3, [1] * 3], atol=1e-5)

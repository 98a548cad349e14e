"""A batch that goes through the network in parts."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from segray.model.encoders import EncoderName
from segray.model.normalisation import BatchNormalization
from segray.model.unet import build_unet
from segray.training.step.parts import predict_block, split_batch, train_parts
from tests.support import draw_picture, square

SIZE, CLASSES = 32, 3


@pytest.fixture(scope="module")
def images() -> tf.Tensor:
    """Seven images, which no number of parts from 2 to 6 divides."""
    return tf.constant(np.stack([draw_picture(SIZE, SIZE, seed) for seed in range(7)]))


def build(
    pretrained: bool, policy: str = "float64", encoder: EncoderName = "MobileNetV2"
) -> keras.Model:
    """A network whose batch norm has statistics of its own, frozen in a pretrained encoder."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    try:
        model = build_unet(square(CLASSES, SIZE, encoder=encoder), b"" if pretrained else None)
    finally:
        keras.config.set_dtype_policy(before)
    own = model.get_layer("encoder")
    own.trainable = True
    rng = np.random.default_rng(0)
    for layer in [*own.layers, *model.layers]:
        if isinstance(layer, keras.layers.BatchNormalization):
            length = layer.gamma.shape[0]
            layer.moving_mean.assign(rng.normal(0, 0.1, length))
            layer.moving_variance.assign(rng.uniform(0.5, 1, length))
            layer.gamma.assign(rng.uniform(0.8, 1.5, length))
            layer.beta.assign(rng.normal(0, 0.2, length))
            if pretrained and not isinstance(layer, BatchNormalization):
                layer.trainable = False
    return model


def learn(model: keras.Model, images: tf.Tensor, call: Any) -> dict[str, Any]:
    """The logits, the gradients, and what the network keeps, after a call in training."""
    variables = model.trainable_variables
    weight = np.random.default_rng(1).normal(size=(len(images), SIZE, SIZE, CLASSES))

    @tf.function
    def run() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = call()
            loss = tf.reduce_mean(logits * weight.astype(np.float32))
        return logits, tape.gradient(loss, variables)

    logits, gradients = run()
    kept = {variable.path: np.array(variable) for variable in model.non_trainable_variables}
    slopes = {v.path: np.array(g) for v, g in zip(variables, gradients, strict=True)}
    return {"logits": logits.numpy(), "kept": kept, "slopes": slopes}


# In float64 but for the logits: a network so deep magnifies the rounding of float32.
@pytest.mark.parametrize(("pretrained", "parts"), [(True, 1), (True, 3), (False, 3)])
def test_parts_learn_what_the_whole_batch_learns(images, pretrained: bool, parts: int) -> None:
    one, other = build(pretrained), build(pretrained)
    whole = learn(one, images, lambda: one(images, training=True))
    joined = learn(
        other,
        images,
        lambda: tf.concat(train_parts(other, split_batch(images, parts)), axis=0),
    )
    np.testing.assert_allclose(joined["logits"], whole["logits"], rtol=1e-5, atol=1e-5)
    for kind in ("kept", "slopes"):
        assert len(whole[kind]) > 60
        for expected, value in zip(whole[kind].values(), joined[kind].values(), strict=True):
            # Where batch norm takes an offset away again, its gradient is rounding alone.
            assert np.linalg.norm(value - expected) < 1e-2 * np.linalg.norm(expected) + 1e-9


@pytest.mark.parametrize("encoder", ["MobileNetV3Large", "EfficientNetV2B0", "ResNet50V2"])
def test_frozen_statistics_of_any_encoder_are_folded(images, encoder: EncoderName) -> None:
    """Where batch norm follows no convolution, or another layer takes that too, they are not."""
    model = build(pretrained=True, encoder=encoder)
    for layer in model.get_layer("encoder").layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    whole = model(images, training=True)
    joined = tf.concat(train_parts(model, split_batch(images, 3)), axis=0)
    np.testing.assert_allclose(joined, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_gpu", [True, False])
def test_a_block_is_predicted_as_one_call_of_the_network_does(images, use_gpu: bool) -> None:
    model = build(pretrained=True)
    block = tf.concat([images, images[:4]], axis=0)  # 11 images in 8 parts
    expected = model(block, training=False)
    logits = predict_block(model, block, use_gpu)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("length", "parts"), [(7, 3), (8, 2), (4, 4), (5, 1)])
def test_a_batch_is_divided_evenly_and_in_its_order(length: int, parts: int) -> None:
    divided = split_batch(tf.range(length), parts)
    assert len(divided) == parts
    lengths = [len(part) for part in divided]
    assert max(lengths) - min(lengths) <= 1
    assert tf.concat(divided, axis=0).numpy().tolist() == list(range(length))


def test_parts_compute_in_the_networks_precision(images) -> None:
    model = build(pretrained=True, policy="mixed_bfloat16")
    expected = model(images, training=True)
    joined = tf.concat(train_parts(model, split_batch(images, 2)), axis=0)
    assert joined.dtype == tf.float32
    # Of bfloat16's eight bits some are lost at each layer: up to a hundredth without oneDNN.
    spread = np.std(expected)
    assert np.sqrt(np.mean((joined - expected) ** 2)) < 0.03 * spread

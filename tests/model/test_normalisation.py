"""Batch normalisation, beside Keras' own. Over several processes it is in test_network.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from segray.model.normalisation import BatchNormalization


def draw(mean: float, deviation: float) -> np.ndarray:
    values = np.random.default_rng(0).normal(mean, deviation, (4, 6, 6, 5))
    return values.astype(np.float32)


def take_step(layer: keras.Layer, images: np.ndarray) -> list[np.ndarray]:
    """What comes out of it in training, what it keeps, and the gradients."""
    images = tf.constant(images)
    weight = tf.constant(np.random.default_rng(1).normal(size=images.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(images)
        normalised = layer(images, training=True)
        loss = tf.reduce_sum(normalised * weight)
    gradients = tape.gradient(loss, [images, *layer.trainable_variables])
    return [np.array(value) for value in (normalised, *layer.variables, *gradients)]


@pytest.mark.parametrize("axis", [-1, 1])
def test_one_replica_does_what_keras_does(axis: int) -> None:
    settings = {"axis": axis, "momentum": 0.8}
    images = draw(0.5, 2.0)
    ours = take_step(BatchNormalization(**settings), images)
    theirs = take_step(keras.layers.BatchNormalization(**settings), images)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_large_mean_costs_the_variance_no_digits_once_it_is_known() -> None:
    """As the difference of two squares of a thousand it would be rounding alone."""
    images = draw(1000, 0.05)
    layer = BatchNormalization(momentum=0.0)
    layer(images, training=True)
    layer(images, training=True)
    expected = images.astype(np.float64).var(axis=(0, 1, 2))
    np.testing.assert_allclose(layer.moving_variance.numpy(), expected, rtol=1e-3)


def test_without_training_it_takes_what_it_keeps() -> None:
    images, layer = draw(3, 2), BatchNormalization(epsilon=0.0)
    layer.build(images.shape)
    layer.moving_mean.assign([3.0] * 5)
    layer.moving_variance.assign([4.0] * 5)
    np.testing.assert_allclose(layer(images, training=False), (images - 3) / 2, atol=1e-5)

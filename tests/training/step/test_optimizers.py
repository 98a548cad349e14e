"""The optimizers' steps."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[np.float32]


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def take_steps(start: Array, gradients: list[Array], **settings: Any) -> list[Array]:
    """The values of a variable after each step of Muon."""
    import keras

    from segray.training.step.optimizers import Muon

    variable = keras.Variable(start)
    optimizer = Muon(**settings)
    optimizer.build([variable])
    values = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        values.append(np.array(variable))
    return values


@pytest.mark.parametrize("shape", [(3, 3, 20, 30), (3, 3, 30, 20), (1, 1, 16, 16), (5, 40)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_all_directions_of_a_matrix_become_equally_long(shape: tuple[int, ...], scale) -> None:
    from segray.training.step.optimizers import orthogonalise

    left, values, right = np.linalg.svd(draw(*shape), full_matrices=False)
    # Far from equal, as gradients have them; the least is a hundredth of their norm.
    values = np.logspace(0, -2, values.shape[-1], dtype=np.float32)
    values = scale * np.maximum(values / np.linalg.norm(values), 0.01)
    matrices = (left * values) @ right
    result = orthogonalise(matrices).numpy()
    assert result.shape == shape
    along = np.einsum("...nk,...nm,...km->...k", left, result, right)
    assert 0.7 < along.min() <= along.max() < 1.28
    # And nothing but these directions.
    np.testing.assert_allclose((left * along[..., None, :]) @ right, result, atol=1e-3)


def test_a_matrix_of_zeros_stays_as_it_is() -> None:
    from segray.training.step.optimizers import orthogonalise

    matrices = np.stack([np.zeros((4, 6), np.float32), draw(4, 6)])
    result = orthogonalise(matrices).numpy()
    assert (result[0] == 0).all()
    assert np.linalg.norm(result[1]) == pytest.approx(2, rel=0.3)


@pytest.mark.parametrize("shape", [(3, 3, 64, 16), (3, 3, 16, 64), (3, 3, 256, 80), (96, 80)])
def test_steps_have_the_size_of_adams_whatever_the_gradient_has(shape: tuple[int, ...]) -> None:
    start = draw(*shape)
    [small] = take_steps(start, [1e-3 * draw(*shape, seed=1)], learning_rate=0.01)
    [large] = take_steps(start, [1e3 * draw(*shape, seed=1)], learning_rate=0.01)
    np.testing.assert_allclose(small, large, atol=1e-5)
    assert np.sqrt(np.mean((small - start) ** 2)) == pytest.approx(0.2 * 0.01, rel=0.2)


def test_a_step_goes_along_the_momentum_of_all_gradients() -> None:
    from segray.training.step.optimizers import orthogonalise

    start, gradients = np.zeros((8, 8), np.float32), [draw(8, 8, seed=1), 2 * draw(8, 8, seed=2)]
    first, second = take_steps(start, gradients, learning_rate=1.0, momentum=0.7)
    length = 0.2 * 8**0.5
    np.testing.assert_allclose(first, -length * orthogonalise(gradients[0]), atol=1e-5)
    # As Nesterov has it: the gradient counts once more, and what was before it by its share.
    momentum = 0.7 * (0.7 * gradients[0] + gradients[1]) + gradients[1]
    np.testing.assert_allclose(second - first, -length * orthogonalise(momentum), atol=1e-5)


def test_sixty_four_filters_at_a_time_learn_from_their_own_gradients_alone() -> None:
    start, gradient = draw(2, 128, 70), draw(2, 128, 70, seed=1)
    [whole] = take_steps(start, [gradient], learning_rate=0.1)
    for half in (slice(0, 64), slice(64, 128)):
        [alone] = take_steps(start[:, half], [gradient[:, half]], learning_rate=0.1)
        np.testing.assert_allclose(whole[:, half], alone, atol=1e-6)


def test_decay_is_decoupled_from_the_gradient() -> None:
    start = draw(8, 8)
    [value] = take_steps(start, [np.zeros_like(start)], learning_rate=0.5, weight_decay=0.1)
    np.testing.assert_allclose(value, 0.95 * start, rtol=1e-5)


def test_muon_learns_the_kernels_inside_of_the_decoder_and_nothing_else() -> None:
    import tensorflow as tf

    from segray.training.config import TrainConfig
    from segray.training.step.network import TrainableNetwork
    from segray.training.step.optimizers import Muon

    strategy, ones = tf.distribute.get_strategy(), np.ones(3, np.float32)
    network = TrainableNetwork(strategy, TrainConfig(image_size=32), b"", ones)
    assert [type(optimizer) is Muon for optimizer in network.optimizers] == [True, False, False]
    # Each has two variables of its own: the learning rate, and how many steps were made.
    assert len(network.optimizers[0].variables) == 2 + 4
    config = TrainConfig(image_size=32, optimizer="adamw")
    network = TrainableNetwork(strategy, config, b"", ones)
    assert not any(type(optimizer) is Muon for optimizer in network.optimizers)

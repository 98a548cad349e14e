"""The optimizers: Muon for the decoder's inner convolution kernels, AdamW for everything else."""

from typing import Any

import keras
import tensorflow as tf

from segray.training.config import TrainConfig

# Polynomials a x + b x³ + c x⁵, applied one after the other. The first is the best approximation of
# 1 of this degree for all x in [0.01, 1]; each of the others is the best for the range that the
# ones before it leave. Values below 0.01 grow by a factor of up to 78.
_POLYNOMIALS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
# The number of filters that are orthogonalised together. The cost of the matrix products grows with
# it, and all 512 filters of a kernel together train no better (docs/log.md, 2026-11-26).
_FILTERS = 64
# The root mean square of AdamW's steps in practice, so that both optimizers can share one learning
# rate (https://arxiv.org/abs/2502.16982, section 2.2).
_STEP = 0.2


def make_optimizers(config: TrainConfig) -> list[keras.Optimizer]:
    """Create the optimizers of the decoder's inner kernels, its other weights, and the encoder.

    Their learning rates are set at each step.
    """
    kernels = Muon if config.optimizer == "muon" else keras.optimizers.AdamW
    makers = (kernels, keras.optimizers.AdamW, keras.optimizers.AdamW)
    optimizers = [make(weight_decay=config.weight_decay) for make in makers]
    for optimizer in optimizers:
        # Only kernels decay; biases and the parameters of batch normalisation do not.
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizers


class Muon(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras publishes no types
    """Muon: Nesterov momentum with orthogonalised updates (singular values near 1).

    It is meant for the kernels of transposed convolutions, [..., n, m], for which
    `keras.optimizers.Muon` falls back to AdamW. Groups of 64 of the n filters are orthogonalised,
    as 64 by m matrices; all n together if 64 does not divide n. The updates of Adam lie mainly in
    the few directions in which gradients are large. A network with random initial weights and only
    a few hundred steps learns more from orthogonal updates
    (https://kellerjordan.github.io/posts/muon/). Weight decay is decoupled.

    Args:
        learning_rate: the learning rate, on the scale of Adam's.
        weight_decay: see `keras.optimizers.AdamW`.
        momentum: the decay rate of the momentum, 0 to 1.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        weight_decay: float | None = None,
        momentum: float = 0.95,
        **settings: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **settings)
        self.momentum = momentum

    def build(self, variables: list[keras.Variable]) -> None:
        """Create the momentum of each variable."""
        if not self.built:
            super().build(variables)
            self._momentums = [self.add_variable_from_reference(v, "momentum") for v in variables]

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        momentum = self._momentums[self._get_variable_index(variable)]
        self.assign(momentum, self.momentum * momentum + gradient)
        # Nesterov momentum: the momentum as it will be in the next step.
        matrices = self.momentum * tf.convert_to_tensor(momentum) + gradient
        *positions, filters, channels = variable.shape
        pieces = _FILTERS if filters % _FILTERS == 0 else filters
        matrices = tf.reshape(matrices, (*positions, -1, pieces, channels))
        scale = _STEP * max(matrices.shape[-2:]) ** 0.5
        # One row of the kernel at a time, because on a CPU several cores then work in parallel.
        rows = [scale * orthogonalise(row) for row in tf.unstack(matrices)]
        step = tf.reshape(tf.stack(rows), variable.shape)
        self.assign_sub(variable, tf.cast(learning_rate, step.dtype) * step)


def orthogonalise(matrices: tf.Tensor) -> tf.Tensor:
    """Bring all singular values close to 1 and keep the singular vectors, by matrix products alone.

    Singular values above a hundredth of the norm of their matrix end up in 0.73 to 1.27; each
    iteration uses the best polynomial for its range (https://arxiv.org/abs/2505.16932). The
    iteration tolerates the rounding of TF32, in which GPUs multiply. Iterating on the smaller
    product of the matrix with its transpose would not.

    Args:
        matrices: float32 [..., n, m]. A matrix of zeros stays as it is.

    Returns:
        float32 [..., n, m].
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    result = tf.linalg.matrix_transpose(matrices) if tall else matrices
    # Divide by the Frobenius norm, so that no singular value is above 1.
    result /= tf.norm(result, axis=(-2, -1), keepdims=True) + 1e-7
    one = tf.eye(result.shape[-2])
    for a, b, c in _POLYNOMIALS:
        square = tf.matmul(result, result, transpose_b=True)
        # Powers are summed in the small square matrices: the matrices themselves are up to 17 times
        # as long as wide, and each pass over them is expensive.
        result = (a * one + square @ (b * one + c * square)) @ result
    return tf.linalg.matrix_transpose(result) if tall else result

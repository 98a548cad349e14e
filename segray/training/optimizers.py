"""The optimizers: Muon for the kernels inside of the decoder, AdamW for everything else."""

from typing import Any

import keras
import tensorflow as tf

from segray.training.config import TrainConfig

# Polynomials a x + b x³ + c x⁵, one after the other: the first comes as near to 1 as one of this
# degree can for all x in [0.01, 1], the others likewise for what those before them leave. What was
# below 0.01 grows by 78.
_POLYNOMIALS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
# How many filters are made orthogonal to each other: a product of matrices costs in proportion, and
# all 512 of a kernel together learn no better (docs/log.md, 2026-11-26).
_FILTERS = 64
# The root mean square of AdamW's steps in practice, so that one learning rate serves both
# (https://arxiv.org/abs/2502.16982, section 2.2).
_STEP = 0.2


def make_optimizers(config: TrainConfig) -> list[keras.Optimizer]:
    """Of the kernels inside of the decoder, of the rest of it with its output, and of the encoder.

    Their learning rates are set at each step.
    """
    kernels = Muon if config.optimizer == "muon" else keras.optimizers.AdamW
    makers = (kernels, keras.optimizers.AdamW, keras.optimizers.AdamW)
    optimizers = [make(weight_decay=config.weight_decay) for make in makers]
    for optimizer in optimizers:
        # Decay pulls at what multiplies features, and not at what centres and scales them.
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizers


class Muon(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras publishes no types
    """Momentum whose steps are made orthogonal: they go as far in each direction that they have.

    For the kernels of transposed convolutions, [..., n, m]: 64 of the n filters at a time, each
    matrix 64 by m for itself; all n where 64 does not divide them. Adam's steps lie in the few
    directions in which gradients are large; a network that starts at random and has a few hundred
    steps learns more of these (https://kellerjordan.github.io/posts/muon/). Weight decay is
    decoupled.

    Args:
        learning_rate: on the scale of Adam's.
        weight_decay: see `keras.optimizers.AdamW`.
        momentum: the share of the last step's momentum in the next one's, 0 to 1.
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
        """Make room for the momentum of each variable."""
        if not self.built:
            super().build(variables)
            self._momentums = [self.add_variable_from_reference(v, "momentum") for v in variables]

    def update_step(self, gradient: tf.Tensor, variable: Any, learning_rate: Any) -> None:
        """Take a step for one variable."""
        momentum = self._momentums[self._get_variable_index(variable)]
        self.assign(momentum, self.momentum * momentum + gradient)
        # As of the next step: Nesterov's momentum.
        matrices = self.momentum * tf.convert_to_tensor(momentum) + gradient
        *positions, filters, channels = variable.shape
        pieces = _FILTERS if filters % _FILTERS == 0 else filters
        matrices = tf.reshape(matrices, (*positions, -1, pieces, channels))
        scale = _STEP * max(matrices.shape[-2:]) ** 0.5
        # A row of the kernel at a time: on a CPU several cores work at several rows.
        rows = [scale * orthogonalise(row) for row in tf.unstack(matrices)]
        step = tf.reshape(tf.stack(rows), variable.shape)
        self.assign_sub(variable, tf.cast(learning_rate, step.dtype) * step)


def orthogonalise(matrices: tf.Tensor) -> tf.Tensor:
    """Bring all singular values near 1 and keep the singular vectors, with matrix products alone.

    Those above a hundredth of the norm of their matrix come to 0.73 to 1.27, by the best polynomial
    for each product (https://arxiv.org/abs/2505.16932). They bear the rounding of TF32, in which
    GPUs multiply; iterating on the product of the matrix with its transpose, which is smaller,
    does not.

    Args:
        matrices: float32 [..., n, m]. One of zeros stays as it is.

    Returns:
        float32 [..., n, m].
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    result = tf.linalg.matrix_transpose(matrices) if tall else matrices
    # By the root of the sum of the squares of all singular values: none is above 1 then.
    result /= tf.norm(result, axis=(-2, -1), keepdims=True) + 1e-7
    one = tf.eye(result.shape[-2])
    for a, b, c in _POLYNOMIALS:
        square = tf.matmul(result, result, transpose_b=True)
        # Powers are added up where they are small: the matrices themselves are up to seventeen
        # times as long as wide, and each pass through them counts.
        result = (a * one + square @ (b * one + c * square)) @ result
    return tf.linalg.matrix_transpose(result) if tall else result

"""A network of a few layers, for tests of what is around it: it is traced in seconds."""

from collections.abc import Callable
from typing import Any

FILTERS = 8


def shrink_network(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Replace the encoder by five convolutions, and narrow the decoder, in this process.

    Args:
        replace: sets an attribute, as `setattr` and `pytest.MonkeyPatch.setattr` do.
    """
    import keras

    from segray.model import architecture, unet
    from segray.model.normalisation import BatchNormalization

    def build_encoder(
        name: str, shape: tuple[int, int, int], weights: bytes | None, momentum: float
    ) -> keras.Model:
        normalisation = BatchNormalization if weights is None else keras.layers.BatchNormalization
        images = x = keras.Input(shape)
        taps = []
        for _ in range(5):
            x = keras.layers.Conv2D(FILTERS, 3, strides=2, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(normalisation(momentum=momentum)(x))
            taps.append(x)
        encoder = keras.Model(images, taps, name="encoder")
        encoder.trainable = weights is None
        return encoder

    replace(unet, "_build_encoder", build_encoder)
    replace(architecture, "DECODERS", dict.fromkeys(architecture.DECODERS, (FILTERS,) * 4))


def train_tiny(settings: dict[str, Any]) -> None:
    """Run a worker as Ray Train does, with such a network."""
    from segray.training.control.worker import train_worker

    shrink_network()
    train_worker(settings)

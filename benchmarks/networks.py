"""What a network costs: weights, multiplications, and images/s of both engines and of training.

    python benchmarks/networks.py                  # both decoders, 128x128, batches of 8
    python benchmarks/networks.py --encoders MobileNetV2 ResNet50V2 --decoders slim

The weights are random. The networks take turns, so that a change of the machine's speed meets all
of them; a figure is the median of the rounds.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from figures import describe_machine

from segray.job import quiet_native_logs
from segray.model.architecture import Architecture, Decoder
from segray.model.bundle import ONNX, open_bundle, write_bundle
from segray.model.counts import count_multiplications, count_weights
from segray.model.encoders import ENCODERS, EncoderName
from segray.model.predictor import OnnxPredictor
from segray.pixels.framing import Frame
from segray.pixels.labels import Labels

_CLASSES = 3


@dataclass(frozen=True)
class NetworkBenchmark:
    """Print what each network costs."""

    encoders: tuple[EncoderName, ...] = ("MobileNetV2",)
    """The encoders, each of which is measured with each decoder."""
    decoders: tuple[Decoder, ...] = ("slim", "tutorial")
    """The decoders."""
    size: int = 128
    """The side of the square that the networks take, in pixels."""
    batch_size: int = 8
    """Images per batch."""
    rounds: int = 5
    """Measurements of each figure."""
    seconds: float = 3.0
    """Duration of each measurement."""


def main() -> None:
    config = tyro.cli(NetworkBenchmark)
    print(f"{describe_machine()}; batches of {config.batch_size}", flush=True)
    networks = [
        Architecture(
            _CLASSES,
            config.size,
            config.size,
            encoder,
            decoder,
            ENCODERS[encoder].input_range,
        )
        for encoder in config.encoders
        for decoder in config.decoders
    ]
    sides = {network: _make_sides(network, config) for network in networks}
    rates: dict[tuple[Architecture, str], list[float]] = {}
    for _ in range(config.rounds):
        for network, steps in sides.items():
            for name, step in steps.items():
                rate = config.batch_size / _time(step, config.seconds)
                rates.setdefault((network, name), []).append(rate)
    print(
        f"{'encoder':<18}{'decoder':<10}{'weights':>10}{'multiplications':>17}  "
        + "".join(f"{name:>14}" for name in ("ONNX Runtime", "TensorFlow", "gradients"))
    )
    for network, steps in sides.items():
        figures = "".join(f"{statistics.median(rates[network, name]):14.1f}" for name in steps)
        print(
            f"{network.encoder:<18}{network.decoder:<10}{count_weights(network) / 1e6:8.2f} M"
            f"{count_multiplications(network) / 1e6:15.0f} M  {figures}",
            flush=True,
        )


def _make_sides(architecture: Architecture, config: NetworkBenchmark) -> dict[str, Any]:
    """Return what is measured: a function for each figure, which passes over a batch."""
    with quiet_native_logs():
        import keras
        import tensorflow as tf

        from segray.model.unet import build_unet

    keras.utils.set_random_seed(0)
    network = build_unet(architecture)
    # Without zeros: the exporter leaves out biases of zeros, and then optimises some graphs less.
    network.set_weights([values + np.float32(0.01) for values in network.get_weights()])
    labels = Labels.parse(("pet=1", "background=2", "border=3"))
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(folder, network, architecture, labels, {}, Frame(config.size, config.size))
        onnx = OnnxPredictor(open_bundle(folder, [ONNX]), 1, os.cpu_count() or 1)
    shape = (config.batch_size, config.size, config.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    @tf.function
    def forward(batch: Any) -> Any:
        return network(batch, training=False)

    @tf.function
    def learn(batch: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(network(batch, training=True)))
        return [tf.reduce_sum(g) for g in tape.gradient(loss, network.trainable_variables)]

    return {
        "ONNX Runtime": lambda: onnx.predict(images),
        "TensorFlow": lambda: forward(images).numpy(),
        "gradients": lambda: [value.numpy() for value in learn(images)],
    }


def _time(step: Callable[[], Any], seconds: float) -> float:
    """Return the mean duration of a step, in seconds, after one that is not counted."""
    step()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        count += 1
    return (time.perf_counter() - started) / count


if __name__ == "__main__":
    main()

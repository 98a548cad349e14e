"""What a decoder costs: multiplications, and images/s of both engines and of training.

    python benchmarks/decoders.py                  # 128x128, batches of 8
    python benchmarks/decoders.py --sizes 128 512

The weights are random. The decoders take turns, so that a change of the machine's speed meets all
of them; a figure is the median of the rounds.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import tyro

from segray.job import quiet_native_logs
from segray.model.architecture import DECODERS, Architecture, Decoder
from segray.model.bundle import ONNX, open_bundle, write_bundle
from segray.model.predictor import OnnxPredictor
from segray.model.shapes import list_convolutions
from segray.pixels.framing import Frame
from segray.pixels.labels import Labels

_CLASSES = 3


@dataclass(frozen=True)
class DecoderBenchmark:
    """Print what each decoder costs."""

    sizes: tuple[int, ...] = (128,)
    """The sides of the squares that the network takes, in pixels."""
    batch_size: int = 8
    """Images per batch."""
    rounds: int = 5
    """Measurements of each figure."""
    seconds: float = 3.0
    """Duration of each measurement."""


def main() -> None:
    config = tyro.cli(DecoderBenchmark)
    print(f"{os.cpu_count()} cores; batches of {config.batch_size}; {date.today()}", flush=True)
    for size in config.sizes:
        sides = {decoder: _make_sides(decoder, size, config) for decoder in DECODERS}
        rates: dict[tuple[Decoder, str], list[float]] = {}
        for _ in range(config.rounds):
            for decoder, steps in sides.items():
                for name, step in steps.items():
                    rate = config.batch_size / _time(step, config.seconds)
                    rates.setdefault((decoder, name), []).append(rate)
        for decoder, steps in sides.items():
            figures = "  ".join(
                f"{name} {statistics.median(rates[decoder, name]):.1f}" for name in steps
            )
            millions = count_multiplications(Architecture(_CLASSES, size, size, decoder)) / 1e6
            print(
                f"{size} px  {decoder:<9} {millions:8.0f} million  images/s: {figures}", flush=True
            )


def count_multiplications(architecture: Architecture) -> int:
    """Return the multiplications of all convolutions for an image."""
    total = 0
    for one in list_convolutions(architecture):
        # A transposed convolution of stride 2 multiplies each pixel of its input.
        shrink = 4 if one.operator == "ConvTranspose" else 1
        kernel = one.kernel**2 * one.channels // one.groups
        total += kernel * one.filters * one.height * one.width // shrink
    return total


def _make_sides(decoder: Decoder, size: int, config: DecoderBenchmark) -> dict[str, Any]:
    """Return what is measured: a function for each figure, which passes over a batch."""
    with quiet_native_logs():
        import keras
        import tensorflow as tf

        from segray.model.unet import build_unet

    keras.utils.set_random_seed(0)
    architecture = Architecture(_CLASSES, size, size, decoder)
    network = build_unet(architecture)
    labels = Labels.parse(("pet=1", "background=2", "border=3"))
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(folder, network, architecture, labels, {}, Frame(size, size))
        onnx = OnnxPredictor(open_bundle(folder, [ONNX]), 1, os.cpu_count() or 1)
    shape = (config.batch_size, size, size, 3)
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

"""How fast training goes, beside a bare Keras `model.fit` over the same arrays in memory.

    python benchmarks/training.py                               # three rounds, some 20 minutes
    python benchmarks/training.py --rounds 1 --json one.json
    python benchmarks/training.py --image-size 32 --images 16 --rounds 1 --sides 0 bare

Every side fine-tunes the same network (encoder from a file and trained, its batch normalisation
frozen) in batches of the same size, with all the cores of the machine. segray's sides are
jobs/train.py as it stands: its augmentation, loss and optimizers, its examples in Ray's object
store. The bare side mirrors images in the map and learns from plain cross-entropy with AdamW; one
of segray's sides has these, too, to tell what the loop costs from what loss and optimizer do. Two
bare fits at once, each with half of a batch and half of the cores for its kernels, never talk to
each other: what they make of one bare fit, two workers could make of one worker if their talking
cost nothing. Runs go one after the other, in processes of their own; rounds go through all sides,
so that what changes about the machine concerns each. Rates count from the end of an epoch's first
step to the end of its last one, in all epochs but the first, which compiles; checkpoints, scores
and pictures are in none.

The encoder's weights are random numbers: nothing is learned here that is of use.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import tyro
from figures import describe_machine, write_figures
from PIL import Image

from segray.data.labelled import read_pair
from segray.data.pairs_table import read_manifest
from segray.job import quiet_native_logs
from segray.model.architecture import Architecture
from segray.pixels.framing import Frame
from segray.pixels.labels import Labels
from segray.pixels.sample import draw_sample

Side = Literal["1", "same", "2", "0", "bare", "halves"]

ROOT = Path(__file__).parent.parent
CLASSES = ("pet=1", "background=2", "border=3")
NAMES: dict[Side, str] = {
    "1": "segray, 1 worker",
    "same": "segray, AdamW and ce",
    "2": "segray, 2 workers",
    "0": "segray, --workers 0",
    "bare": "bare model.fit",
    "halves": "2 bare fits at once",
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class TrainingBenchmark:
    """Print images/s of segray's training and of a bare `model.fit`."""

    images: int = 192
    """How many images an epoch has; as many as fill batches are learned from."""
    image_size: int = 128
    """Side of the square that the network sees, in pixels."""
    batch_size: int = 16
    """Images in a step, over all workers together."""
    epochs: int = 8
    """Of each run; the first one is not counted. Ray's own processes start during the next two."""
    rounds: int = 3
    """How often each side runs."""
    sides: tuple[Side, ...] = ("1", "same", "2", "0", "bare", "halves")
    """Which sides: segray with so many workers; one worker with the bare fit's optimizer and loss;
    the bare fit; and two of them at once, of half a batch each."""
    segray_flags: tuple[str, ...] = ()
    """More flags for jobs/train.py, in one word each: --segray-flags=--loss=ce."""
    json: str | None = None
    """File that receives the figures of every round."""


@dataclass(frozen=True)
class Figures:
    """What came of one run.

    Attributes:
        images_per_second: the median of its epochs but the first.
        waiting: likewise, the share of the time in which a worker waited for data, 0 to 1; None
            where it is not known.
    """

    images_per_second: float
    waiting: float | None


def main() -> None:
    config = tyro.cli(TrainingBenchmark)
    if config.batch_size % 2 and {"2", "halves"} & set(config.sides):
        raise SystemExit("give an even --batch-size: two workers share it")
    print(describe(config), flush=True)
    rounds: dict[Side, list[Figures]] = {side: [] for side in config.sides}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, config)
        in_new_processes(write_encoder, (str(folder / "encoder.weights.h5"),))
        for number in range(1, config.rounds + 1):
            for side in config.sides:
                started = time.monotonic()
                rounds[side].append(run_side(side, folder, config))
                print(
                    f"round {number}/{config.rounds}  {NAMES[side]:<20} "
                    f"{rounds[side][-1].images_per_second:7.2f} images/s, "
                    f"{time.monotonic() - started:.0f} s in all",
                    file=sys.stderr,
                    flush=True,
                )
    print("\n".join(make_table(rounds)), flush=True)
    write_figures(
        config.json,
        config,
        sides={side: [asdict(figures) for figures in runs] for side, runs in rounds.items()},
    )


def describe(config: TrainingBenchmark) -> str:
    """The machine, the versions and the settings, in a line."""
    flags = " ".join(("", *config.segray_flags))
    return (
        f"{describe_machine()}; {config.image_size}x{config.image_size}, batch "
        f"{config.batch_size}, {config.images} images, {config.epochs} epochs, {config.rounds} "
        f"round(s), fine-tuning; segray: its recipe{flags}; bare fit: AdamW, cross-entropy, flips"
    )


def make_table(rounds: dict[Side, list[Figures]]) -> list[str]:
    """A line for each side: the median over its rounds, and the least and the greatest."""
    lines = [
        f"{'':<20} {'images/s':>9} {'least':>8} {'most':>8} {'of bare fit':>12} {'waiting':>8}"
    ]
    bare = [figures.images_per_second for figures in rounds.get("bare", [])]
    for side, runs in rounds.items():
        rates = [figures.images_per_second for figures in runs]
        waits = [figures.waiting for figures in runs if figures.waiting is not None]
        # Of the same round, so that what concerned both at the time drops out.
        shares = [rate / other for rate, other in zip(rates, bare, strict=False)]
        share = f"{statistics.median(shares):.2f}" if shares else "-"
        waiting = f"{statistics.median(waits):.2%}" if waits else "-"
        lines.append(
            f"{NAMES[side]:<20} {statistics.median(rates):>9.2f} {min(rates):>8.2f} "
            f"{max(rates):>8.2f} {share:>12} {waiting:>8}"
        )
    return lines


def run_side(side: Side, folder: Path, config: TrainingBenchmark) -> Figures:
    """One run of one side, in processes that end with it."""
    if side == "bare":
        [rates] = in_new_processes(fit_bare, (folder, config))
        return Figures(statistics.median(rates), None)
    if side == "halves":
        threads = max(1, (os.cpu_count() or 2) // 2)
        half = replace(config, batch_size=config.batch_size // 2)
        both = in_new_processes(fit_bare, *[(folder, half, part, threads) for part in range(2)])
        return Figures(sum(statistics.median(rates) for rates in both), None)
    if side == "same":
        flags = ("--optimizer=adamw", "--loss=ce", *config.segray_flags)
        return run_segray("1", folder, replace(config, segray_flags=flags))
    return run_segray(side, folder, config)


def run_segray(workers: str, folder: Path, config: TrainingBenchmark) -> Figures:
    """One run of jobs/train.py."""
    with tempfile.TemporaryDirectory() as output:
        flags = {
            "pairs": folder / "pairs.csv",
            "output": Path(output, "run"),
            "encoder-weights": folder / "encoder.weights.h5",
            "frozen-epochs": 0,
            "image-size": config.image_size,
            "batch-size": config.batch_size,
            "epochs": config.epochs,
            "workers": workers,
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        done = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "train.py"), *words, *config.segray_flags],
            env={**os.environ, "RAY_ADDRESS": "local"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"jobs/train.py ended with {done.returncode}:\n{done.stdout}")
        lines = Path(output, "run", "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines][1:]
    return Figures(
        statistics.median(record["images_per_second"] for record in records),
        statistics.median(record["waiting"] for record in records),
    )


def fit_bare(
    folder: Path, config: TrainingBenchmark, part: int | None = None, threads: int = 0
) -> list[float]:
    """Keras' own loop over arrays in memory: images/s of each epoch but the first.

    Args:
        folder: with the data.
        config: the settings.
        part: which half of the images to learn from, 0 or 1; default: all.
        threads: how many cores to compute on; 0 for all.
    """
    with quiet_native_logs():
        import keras
        import tensorflow as tf

        from segray.model.unet import build_unet

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    images, masks = read_arrays(folder, config.image_size)
    if part is not None:
        images, masks = images[part::2], masks[part::2]
    keras.utils.set_random_seed(0)
    content = (folder / "encoder.weights.h5").read_bytes()
    model = build_unet(Architecture(len(CLASSES), config.image_size, config.image_size), content)
    encoder = model.get_layer("encoder")
    encoder.trainable = True
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def mirror(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pair = tf.concat([image, mask[..., None]], axis=-1)
        pair = tf.image.random_flip_left_right(pair)
        return pair[..., :3], pair[..., 3]

    batches = (
        tf.data.Dataset.from_tensor_slices((images, masks))
        .shuffle(len(images))
        .map(mirror, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(config.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    started: list[float] = []
    ended: list[float] = []

    def note_start(step: int, logs: Any) -> None:
        if step == 0:
            started.append(time.monotonic())

    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=note_start,
        on_epoch_end=lambda epoch, logs: ended.append(time.monotonic()),
    )
    model.fit(batches, epochs=config.epochs, verbose=0, shuffle=False, callbacks=[clock])
    counted = (len(images) // config.batch_size - 1) * config.batch_size
    return [counted / (end - start) for start, end in list(zip(started, ended, strict=True))[1:]]


def read_arrays(
    folder: Path, image_size: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The images to learn from as segray decodes them, uint8 [N, S, S, 3], and masks [N, S, S]."""
    labels = Labels.parse(CLASSES)
    images, masks = [], []
    for pair in read_manifest(str(folder / "pairs.csv"))["train"]:
        labelled = read_pair(pair, labels, image_size)
        images.append(labelled.picture.pixels)
        masks.append(Frame(image_size, image_size).scale_mask(labelled.class_ids))
    return np.stack(images), np.stack(masks)


def write_data(folder: Path, config: TrainingBenchmark) -> None:
    """Sample pictures to learn from, a few to validate on, and their manifest."""
    validation = config.batch_size // 2
    with (folder / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "split"])
        for index in range(config.images + validation):
            names = [f"image_{index:05d}.jpg", f"mask_{index:05d}.png"]
            for name, pixels in zip(names, draw_sample(index), strict=True):
                Image.fromarray(pixels).save(folder / name)
            table.writerow([*names, "train" if index < config.images else "validation"])


def write_encoder(path: str) -> None:
    """A weights file as --encoder-weights takes it, of random numbers."""
    with quiet_native_logs():
        import keras

    keras.utils.set_random_seed(0)
    keras.applications.MobileNetV2((96, 96, 3), include_top=False, weights=None).save_weights(path)


def in_new_processes(function: Callable[..., _T], *calls: tuple[Any, ...]) -> list[_T]:
    """Call a function with the arguments of each call, at the same time, in a process for each."""
    with ProcessPoolExecutor(len(calls), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *arguments) for arguments in calls]
        return [future.result() for future in futures]


if __name__ == "__main__":
    main()

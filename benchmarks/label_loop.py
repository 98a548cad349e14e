"""Whether it pays to label the images that jobs/review.py chooses, instead of random ones.

    python benchmarks/label_loop.py --images photos --masks trimaps
    python benchmarks/label_loop.py --images photos --masks masks --classes cat=1 other=0 --seeds 5

For each seed, labelled images are divided into a few that are labelled at first, a validation set,
a test set, and the rest, whose labels nobody knows. A model learns from the first ones. Then so
many more are labelled: those that jobs/review.py chooses by this model, or random ones. From the
first ones and these, another model learns, and is scored on the test set. A line has the mean IoU
there of the first model and of both others, at the images' own resolution, and the difference of
the last two.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from figures import describe_machine, write_figures

from segray.data.pairs import Pair, find_pairs

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class LabelLoopBenchmark:
    """Print what more labels give: of chosen images, and of random ones."""

    images: str
    """A folder of images."""
    masks: str
    """The folder of their masks."""
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = (
        "pet=1",
        "background=2",
        "border=3",
    )
    """As jobs/train.py takes them."""
    encoder_weights: str = "imagenet"
    """As jobs/train.py takes them."""
    image_size: int = 128
    """Input resolution of the network, in pixels."""
    epochs: int = 20
    """Epochs of each training."""
    labelled: int = 60
    """Images that are labelled at first."""
    more: int = 60
    """Images that are labelled then."""
    validation: int = 30
    """Images of the validation set."""
    test: int = 60
    """Images of the test set."""
    seeds: int = 3
    """Divisions of the images."""
    json: str | None = None
    """File that receives the figures of all lines."""


def main() -> None:
    config = tyro.cli(LabelLoopBenchmark)
    pairs = find_pairs(config.images, config.masks, "", "").pairs
    print(f"{describe_machine()}; {len(pairs)} pairs", flush=True)
    print(f"{'seed':<6}{'first':>8}{'chosen':>8}{'random':>8}{'difference':>12}", flush=True)
    lines = []
    for seed in range(config.seeds):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(_go_round(config, pairs, seed, Path(folder)))
        print(_format(str(seed), lines[-1]), flush=True)
    print(_format("mean", [statistics.mean(values) for values in zip(*lines, strict=True)]))
    write_figures(config.json, config, lines=lines)


def _format(name: str, scores: Sequence[float]) -> str:
    """A line of the table."""
    first, chosen, random = scores
    return f"{name:<6}{first:>8.3f}{chosen:>8.3f}{random:>8.3f}{chosen - random:>+12.3f}"


def _go_round(
    config: LabelLoopBenchmark, pairs: Sequence[Pair], seed: int, folder: Path
) -> tuple[float, float, float]:
    """The mean IoU of the first model, and with more images: chosen ones, and random ones."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    sizes = (config.test, config.validation, config.labelled)
    *sets, pool = np.split(order, np.cumsum(sizes))
    test, validation, labelled = ([pairs[i] for i in some] for some in sets)
    others = {pairs[i].image: pairs[i] for i in pool}

    def learn(name: str, train: Sequence[Pair]) -> float:
        splits = {"train": train, "validation": validation, "test": test}
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("image", "mask", "split"))
            table.writerows((p.image, p.mask, split) for split in splits for p in splits[split])
        settings = ("--image-size", config.image_size, "--epochs", config.epochs, "--seed", seed)
        _run(
            *("train", "--pairs", folder / f"{name}.csv", "--output", folder / name, *settings),
            *("--encoder-weights", config.encoder_weights, "--workers", 0),
            *("--classes", *config.classes),
        )
        output = folder / f"{name}-scores"
        _run(
            *("evaluate", "--model", folder / name / "model", "--output", output),
            *("--pairs", folder / f"{name}.csv", "--split", "test"),
        )
        scores = json.loads((output / "metrics.json").read_text())
        return scores["original_resolution"]["mean_iou"]

    first = learn("first", labelled)
    (folder / "pool.csv").write_text("\n".join(["uri", *others]) + "\n")
    _run(
        *("segment", "--model", folder / "first" / "model", "--manifest", folder / "pool.csv"),
        *("--output", folder / "masks", "--workers", 0),
    )
    _run(
        "review",
        "--results",
        folder / "masks",
        "--output",
        folder / "review",
        "--count",
        config.more,
    )
    with (folder / "review" / "pairs.csv").open(newline="") as file:
        chosen = [others[row["image"]] for row in csv.DictReader(file)]
    random = [pairs[i] for i in pool[: len(chosen)]]
    return first, learn("chosen", [*labelled, *chosen]), learn("random", [*labelled, *random])


def _run(job: str, *flags: object) -> None:
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])


if __name__ == "__main__":
    main()

"""Whether it pays to label the images that jobs/review.py chooses, instead of random ones.

    python benchmarks/label_loop.py --images photos --masks trimaps
    python benchmarks/label_loop.py --images photos --masks masks --rounds 5 --more 12 --continued 5

For each seed, labelled images are divided into a few that are labelled at first, a validation set,
a test set, and the rest, whose labels nobody knows. A model learns from the first ones. In each
round, more of the rest are labelled: by one annotator those that jobs/review.py chooses by the
newest model, by another random ones; and each has a new model, from all images labelled so far.
A line has the mean IoU of both models on the test set, at the images' own resolution, and their
difference; in round 0 both have the first model.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
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
    """Print what more labels give: those of chosen images, and those of random ones."""

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
    """Epochs of a training that starts from the encoder's weights."""
    continued: int = 0
    """Epochs of the trainings after the first, which then continue from the newest model; 0: they
    start anew."""
    labelled: int = 60
    """Images that are labelled at first."""
    more: int = 60
    """Images that are labelled in each round."""
    rounds: int = 1
    """Rounds of labelling."""
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
    print(f"{'seed':<6}{'round':<7}{'chosen':>8}{'random':>8}{'difference':>12}", flush=True)
    lines: list[list[tuple[float, float]]] = []
    for seed in range(config.seeds):
        lines.append([])
        with tempfile.TemporaryDirectory() as folder:
            for scores in _label(config, pairs, seed, Path(folder)):
                _print_line(str(seed), len(lines[-1]), scores)
                lines[-1].append(scores)
    for number, rounds in enumerate(zip(*lines, strict=True)):
        chosen, random = (statistics.mean(scores) for scores in zip(*rounds, strict=True))
        _print_line("mean", number, (chosen, random))
    write_figures(config.json, config, lines=lines)


def _print_line(name: str, number: int, scores: tuple[float, float]) -> None:
    chosen, random = scores
    line = f"{name:<6}{number:<7}{chosen:>8.3f}{random:>8.3f}{chosen - random:>+12.3f}"
    print(line, flush=True)


def _label(
    config: LabelLoopBenchmark, pairs: Sequence[Pair], seed: int, folder: Path
) -> Iterator[tuple[float, float]]:
    """Yield the mean IoU with the chosen images and with random ones: at first, and per round."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    sizes = (config.test, config.validation, config.labelled)
    test, validation, labelled, pool = (
        [pairs[i] for i in some] for some in np.split(order, np.cumsum(sizes))
    )
    held_out = {"validation": validation, "test": test}
    model = folder / "first"
    score = _learn(config, {"train": labelled, **held_out}, seed, model)
    yield score, score

    chosen, models = labelled, {"chosen": model, "random": model}
    for number in range(1, config.rounds + 1):
        rest = {pair.image: pair for pair in pool if pair not in chosen}
        found = _review(config, rest, models["chosen"], folder / f"review-{number}")
        chosen = [*chosen, *found]
        random = [*labelled, *pool[: len(chosen) - len(labelled)]]
        scores = []
        for name, train in (("chosen", chosen), ("random", random)):
            model = folder / f"{name}-{number}"
            splits = {"train": train, **held_out}
            scores.append(_learn(config, splits, seed, model, models[name]))
            models[name] = model
        yield scores[0], scores[1]


def _learn(
    config: LabelLoopBenchmark,
    splits: dict[str, list[Pair]],
    seed: int,
    folder: Path,
    before: Path | None = None,
) -> float:
    """Train a model, and return its mean IoU on the test set."""
    folder.mkdir()
    path = folder / "pairs.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "mask", "split"))
        table.writerows((p.image, p.mask, split) for split in splits for p in splits[split])
    if before and config.continued:
        start = ("--from-model", before / "run" / "model", "--epochs", config.continued)
    else:
        start = (
            *("--encoder-weights", config.encoder_weights, "--epochs", config.epochs),
            *("--image-size", config.image_size, "--classes", *config.classes),
        )
    run, scores = folder / "run", folder / "scores"
    _run("train", "--pairs", path, "--output", run, "--seed", seed, "--workers", 0, *start)
    _run(
        *("evaluate", "--model", run / "model", "--output", scores),
        *("--pairs", path, "--split", "test"),
    )
    metrics = json.loads((scores / "metrics.json").read_text())
    return metrics["original_resolution"]["mean_iou"]


def _review(
    config: LabelLoopBenchmark, rest: dict[str, Pair], model: Path, folder: Path
) -> list[Pair]:
    """Return the images that jobs/review.py chooses."""
    folder.mkdir()
    manifest, masks, output = (folder / name for name in ("rest.csv", "masks", "review"))
    manifest.write_text("\n".join(["uri", *rest]) + "\n")
    _run(
        *("segment", "--model", model / "run" / "model", "--manifest", manifest),
        *("--output", masks, "--workers", 0),
    )
    _run("review", "--results", masks, "--output", output, "--count", config.more)
    with (output / "pairs.csv").open(newline="") as file:
        return [rest[row["image"]] for row in csv.DictReader(file)]


def _run(job: str, *flags: object) -> None:
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])


if __name__ == "__main__":
    main()

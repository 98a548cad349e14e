"""What a mask costs: `segment_logits` beside plain numpy over every pixel.

    python benchmarks/masks.py                                  # half a minute
    python benchmarks/masks.py --repeats 15 --json masks.json
    python benchmarks/masks.py --images 300x200 --classes 3 --repeats 3

The logits are smooth noise, in which about a tenth of the cells has more than one winner, as in the
logits of a trained network. The plain way interpolates, compares and exponentiates in float32, all
classes of some rows at a time, which stay in the cache. Both run on one core, in turn; times are
medians over the repeats. The last columns are what writing the mask as a PNG costs, how many pixels
of the two masks differ (where float32 rounds a tie the other way), and by how much the mean
confidence of a class does at most.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tyro
from figures import describe_machine, write_figures
from PIL import Image

from segray.pixels.masks import encode_mask, segment_logits
from segray.pixels.statistics import ClassStatistics

# The plain way's float32 values at a time: what was the fastest.
_BAND_VALUES = 1 << 19


@dataclass(frozen=True)
class MasksBenchmark:
    """Print milliseconds for a mask with its statistics, and of the plain way."""

    images: tuple[str, ...] = ("500x375", "4000x3000")
    """Sizes of the masks, width x height in pixels."""
    classes: tuple[int, ...] = (3, 20)
    """Numbers of classes."""
    logits: int = 128
    """Side of the square of logits."""
    repeats: int = 7
    """How often each is measured."""
    json: str | None = None
    """File that receives the figures of every repeat."""


@dataclass(frozen=True)
class Figures:
    """What came of one size and number of classes.

    Attributes:
        image: width x height.
        classes: how many.
        undecided: share of the squares of four logits whose winners are not one, 0 to 1.
        segray, plain, png: seconds of each repeat.
        differing_pixels: between the two masks.
        confidence_difference: the largest, of the mean confidence of a class.
    """

    image: str
    classes: int
    undecided: float
    segray: list[float]
    plain: list[float]
    png: list[float]
    differing_pixels: int
    confidence_difference: float


def main() -> None:
    config = tyro.cli(MasksBenchmark)
    print(describe(config), flush=True)
    runs = [measure(image, n, config) for n in config.classes for image in config.images]
    print("\n".join(make_table(runs)), flush=True)
    write_figures(config.json, config, runs=[asdict(run) for run in runs])


def describe(config: MasksBenchmark) -> str:
    """The machine, the versions and the settings, in a line."""
    return (
        f"{describe_machine()}; one core used; smooth logits {config.logits}x"
        f"{config.logits}, medians of {config.repeats}"
    )


def measure(image: str, classes: int, config: MasksBenchmark) -> Figures:
    """Time both ways in turn, and compare what they give."""
    width, height = (int(side) for side in image.split("x"))
    logits = draw_logits(config.logits, classes)
    palette = [(i, i, i) for i in range(classes)]
    seconds: dict[str, list[float]] = {"segray": [], "plain": [], "png": []}

    def timed(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        outcome = function(*arguments)
        seconds[name].append(time.perf_counter() - started)
        return outcome

    # A first call each, not counted: memory is new to the process then.
    segment_logits(logits, height, width)
    segment_plainly(logits, height, width)
    for _ in range(config.repeats):
        mask, own = timed("segray", segment_logits, logits, height, width)
        other_mask, other = timed("plain", segment_plainly, logits, height, width)
        timed("png", encode_mask, mask, palette)
    differences = [
        abs(mean - other_mean)
        for mean, other_mean in zip(own.confidences, other.confidences, strict=True)
        if mean is not None and other_mean is not None
    ]
    return Figures(
        image=image,
        classes=classes,
        undecided=share_undecided(logits),
        **seconds,
        differing_pixels=int((mask != other_mask).sum()),
        confidence_difference=max(differences),
    )


def make_table(runs: list[Figures]) -> list[str]:
    """A line for each run."""
    lines = [
        f"{'image':<12}{'classes':>8}{'undecided':>11}{'segray, ms':>12}{'plain, ms':>11}"
        f"{'times':>7}{'PNG, ms':>9}{'pixels differ':>15}{'confidence differs':>20}"
    ]
    for run in runs:
        own, plain, png = (
            1000 * statistics.median(seconds) for seconds in (run.segray, run.plain, run.png)
        )
        lines.append(
            f"{run.image:<12}{run.classes:>8}{run.undecided:>11.1%}{own:>12.2f}{plain:>11.2f}"
            f"{plain / own:>7.1f}{png:>9.2f}{run.differing_pixels:>15}"
            f"{run.confidence_difference:>20.1e}"
        )
    return lines


def draw_logits(size: int, classes: int) -> npt.NDArray[np.float32]:
    """Smooth noise: float32 [size, size, classes]."""
    rng = np.random.default_rng(0)
    # The more classes, the more borders there are between blobs of one size.
    blobs = max(2, round(size * 0.08 / classes**0.25))
    planes = [
        Image.fromarray(rng.normal(0, 4, (blobs, blobs)).astype(np.float32)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        for _ in range(classes)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def share_undecided(logits: npt.NDArray[np.float32]) -> float:
    """The share of the squares of four logits that more than one class wins."""
    winner = logits.argmax(axis=-1)
    corner = winner[1:, 1:]
    others = (winner[:-1, 1:], winner[1:, :-1], winner[:-1, :-1])
    return float(np.mean(np.any([corner != other for other in others], axis=0)))


def segment_plainly(
    logits: npt.NDArray[np.float32], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], ClassStatistics]:
    """What `segment_logits` gives, computed for every pixel."""
    planes = np.ascontiguousarray(np.moveaxis(logits, -1, 0))
    classes = len(planes)
    left, right, along = _neighbours(planes.shape[2], width)
    top, bottom, down = _neighbours(planes.shape[1], height)
    mask = np.empty((height, width), dtype=np.uint8)
    pixels = np.zeros(classes, dtype=np.int64)
    confidence = np.zeros(classes)
    band = max(1, _BAND_VALUES // (classes * width))
    for start in range(0, height, band):
        rows = slice(start, min(start + band, height))
        first, last = top[rows][0], bottom[rows][-1] + 1
        narrow = planes[:, first:last]
        wide = narrow[:, :, left] + along * (narrow[:, :, right] - narrow[:, :, left])
        upper, lower = wide[:, top[rows] - first], wide[:, bottom[rows] - first]
        values = upper + down[rows, None] * (lower - upper)

        # Class by class: numpy's argmax over a short axis costs several times as much.
        best = values[0].copy()
        winner = np.zeros(best.shape, dtype=np.uint8)
        for class_id in range(1, classes):
            winner[values[class_id] > best] = class_id
            np.maximum(best, values[class_id], out=best)
        total = np.zeros_like(best)
        for plane in values:
            total += np.exp(plane - best)
        mask[rows] = winner
        pixels += np.bincount(winner.ravel(), minlength=classes)
        confidence += np.bincount(winner.ravel(), (1 / total).ravel(), minlength=classes)
    return mask, ClassStatistics(pixels, confidence)


def _neighbours(
    size: int, target: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """The two logits of each pixel along one axis, and the share of the second."""
    position = ((np.arange(target) + 0.5) * (size / target) - 0.5).clip(0, size - 1)
    lower = np.floor(position).astype(np.intp)
    return lower, np.minimum(lower + 1, size - 1), (position - lower).astype(np.float32)


if __name__ == "__main__":
    main()

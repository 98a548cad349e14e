"""How far the expected IoU can be trusted: beside the true one, on clean and on corrupted images.

    python benchmarks/expected_iou.py --model MODEL --pairs pairs.csv --split validation
    python benchmarks/expected_iou.py --model MODEL --images photos --masks trimaps --json iou.json

The pairs have to be others than those of the training. Each image is segmented as it is, blurred,
darkened, with noise, and turned, before it is brought to the network's resolution. A line has the
mean IoU over all images, true and expected, at the images' own resolution; the mean over the images
of both, and of their difference; and Spearman's rank correlation of the images' true mean IoU with
three things that need no truth: the expected IoU, the mean confidence, and the mean entropy of the
network's probabilities (negative, so that more is better). A second table has the classes of the
clean images. The last line is what the estimate costs on one core, beside the mask.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tyro
from figures import describe_machine, write_figures
from PIL import Image, ImageFilter

from segray.data.labelled import fetch_pair, read_pair
from segray.data.pairs import Pair, find_pairs
from segray.data.pairs_table import SPLITS, read_manifest
from segray.evaluation.expected import rank_correlation
from segray.model.bundle import ONNX, Bundle, open_bundle
from segray.model.predictor import Predictor, load_predictor
from segray.pixels.canvas import Canvas
from segray.pixels.decoding import read_picture
from segray.pixels.expected import ExpectedOverlap, ExpectedPixels
from segray.pixels.framing import Frame
from segray.pixels.masks import MaskBuilder
from segray.pixels.metrics import Confusion, class_iou, confusion_matrix, mean_iou

#: Strengths of each corruption: the radius in five hundredths of the longer side, the factor of all
#: values, the standard deviation in values of 0 to 255, and degrees.
CORRUPTIONS = {
    "clean": (0.0,),
    "blur": (1.0, 2.0, 4.0),
    "darkness": (0.5, 0.25, 0.12),
    "noise": (15.0, 30.0, 60.0),
    "turned": (90.0, 180.0, 270.0),
}


@dataclass(frozen=True)
class ExpectedIouBenchmark:
    """Print the expected and the true IoU, on clean and on corrupted images."""

    model: str
    """A model bundle."""
    pairs: str | None = None
    """A table of pairs, or else --images and --masks."""
    split: str = "test"
    """The split of --pairs."""
    images: str | None = None
    """A folder of images."""
    masks: str | None = None
    """The folder of their masks."""
    json: str | None = None
    """File that receives the figures of all lines, and those of each image."""


@dataclass(frozen=True)
class Seen:
    """What came of one image.

    Attributes:
        confusion: int64 [C, C].
        overlap: the expected overlap.
        confidence: the mean over all pixels.
        entropy: the mean over all logits, in nats.
        seconds: what the mask and the estimate took.
    """

    confusion: Confusion
    overlap: ExpectedOverlap
    confidence: float
    entropy: float
    seconds: tuple[float, float]


def main() -> None:
    config = tyro.cli(ExpectedIouBenchmark)
    bundle, pairs = open_bundle(config.model, [ONNX]), _find_pairs(config)
    predictor = load_predictor(bundle, "onnx")
    print(f"{describe_machine()}; {len(pairs)} pairs; ", end="")
    print(f"model {bundle.digest}, exponent {bundle.iou_exponent:.3f}", flush=True)
    print(
        f"{'':<16}{'all images: true':>17}{'expected':>9}{'off':>8}{'each: true':>12}"
        f"{'expected':>9}{'differ':>8}{'rank: expected':>16}{'confidence':>11}{'entropy':>8}"
    )
    lines, clean = [], []
    for name, strengths in CORRUPTIONS.items():
        for strength in strengths:
            seen = list(_look(bundle, predictor, pairs, name, strength))
            clean = clean or seen
            lines.append(_summarise(name, strength, seen, bundle))
            print(_format(lines[-1]), flush=True)
    print("\n".join(_describe_classes(clean, bundle)))
    write_figures(config.json, config, lines=lines)


def corrupt(
    pixels: npt.NDArray[np.uint8], name: str, strength: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Corrupt an image, uint8 [H, W, 3], in one of the ways of `CORRUPTIONS`."""
    if name == "blur":
        radius = strength * max(pixels.shape) / 500
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    if name == "darkness":
        return (pixels * strength).astype(np.uint8)
    if name == "noise":
        return np.clip(pixels + rng.normal(0, strength, pixels.shape), 0, 255).astype(np.uint8)
    return turn(pixels, strength) if name == "turned" else pixels


def turn(array: npt.NDArray[np.uint8], degrees: float) -> npt.NDArray[np.uint8]:
    """Turn pixels or class ids by a multiple of 90 degrees."""
    return np.ascontiguousarray(np.rot90(array, round(degrees / 90)))


def _find_pairs(config: ExpectedIouBenchmark) -> list[Pair]:
    if config.pairs:
        return read_manifest(config.pairs)[SPLITS[config.split]]
    return find_pairs(str(config.images), str(config.masks), "", "").pairs


def _look(
    bundle: Bundle, predictor: Predictor, pairs: list[Pair], name: str, strength: float
) -> Iterator[Seen]:
    """Segment all images, corrupted alike, and compare; those without a label are left out."""
    rng, classes = np.random.default_rng(0), len(bundle.labels)
    for pair in pairs:
        labelled = read_pair(pair, bundle.labels, bundle.frame)
        own = Frame(labelled.picture.height, labelled.picture.width)
        pixels = read_picture(fetch_pair(pair)[0], own, bundle.value_range).pixels
        pixels = corrupt(pixels, name, strength, rng)
        truth = turn(labelled.class_ids, strength) if name == "turned" else labelled.class_ids
        picture = read_picture(Image.fromarray(pixels), bundle.frame)
        canvas = Canvas(picture, bundle.frame, classes)
        rows = [canvas.add(predictor.predict(window[None])[0]) for window in canvas.windows()]
        logits = np.concatenate([some for some in rows if some is not None])
        seen = _compare(logits, truth, classes)
        if seen.confusion.any():
            yield seen


def _compare(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8], classes: int) -> Seen:
    started = time.perf_counter()
    builder = MaskBuilder(logits.shape, *truth.shape)
    builder.add(logits)
    mask, statistics = builder.finish()
    between = time.perf_counter()
    pixels = ExpectedPixels(logits.shape)
    pixels.add(logits)
    expected = pixels.finish(statistics)
    overlap = ExpectedOverlap.of(statistics.pixels, statistics.summed_confidence, expected)
    ended = time.perf_counter()
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return Seen(
        confusion=confusion_matrix(truth, mask, classes),
        overlap=overlap,
        confidence=float(statistics.summed_confidence.sum() / mask.size),
        entropy=float(-(shares * np.log(shares + 1e-12)).sum(axis=-1).mean()),
        seconds=(between - started, ended - between),
    )


def _summarise(name: str, strength: float, seen: list[Seen], bundle: Bundle) -> dict[str, object]:
    usual, exponent = bundle.usual_shares, bundle.iou_exponent
    true = [mean_iou(one.confusion) for one in seen]
    expected = [float(one.overlap.image_iou(usual, exponent)) for one in seen]
    measures = {
        "expected": expected,
        "confidence": [one.confidence for one in seen],
        "entropy": [-one.entropy for one in seen],
    }
    return {
        "corruption": name,
        "strength": strength,
        "true": mean_iou(sum_confusions(seen)),
        "expected": sum_overlaps(seen).mean_iou(exponent),
        "images_true": float(np.mean(true)),
        "images_expected": float(np.mean(expected)),
        "images_differ": float(np.mean(np.abs(np.subtract(true, expected)))),
        "rank": {
            kind: rank_correlation(pa.table({"expected_iou": values, "mean_iou": true}))
            for kind, values in measures.items()
        },
        "images": {"true": true, **measures},
    }


def sum_confusions(seen: list[Seen]) -> Confusion:
    """The confusion matrix of all images, int64 [C, C]."""
    return np.sum([one.confusion for one in seen], axis=0)


def sum_overlaps(seen: list[Seen]) -> ExpectedOverlap:
    """The expected overlap in all images."""
    return sum((one.overlap for one in seen), ExpectedOverlap.zero(len(seen[0].confusion)))


def _format(line: dict[str, object]) -> str:
    """A line of the table."""
    strength = f"{line['strength']:g}" if line["strength"] else ""
    off = line["expected"] - line["true"]
    ranks = ["-" if rank is None else f"{rank:.2f}" for rank in line["rank"].values()]
    return (
        f"{line['corruption']:<10}{strength:<6}{line['true']:>17.3f}{line['expected']:>9.3f}"
        f"{off:>+8.3f}{line['images_true']:>12.3f}{line['images_expected']:>9.3f}"
        f"{line['images_differ']:>8.3f}{ranks[0]:>16}{ranks[1]:>11}{ranks[2]:>8}"
    )


def _describe_classes(seen: list[Seen], bundle: Bundle) -> list[str]:
    """A line for each class over the clean images, and the cost of an image."""
    true = class_iou(sum_confusions(seen))
    expected = sum_overlaps(seen).class_iou(bundle.iou_exponent)
    mask, own = (1000 * statistics.median(one.seconds[i] for one in seen) for i in (0, 1))
    return [
        f"\n{'class':<20}{'true':>8}{'expected':>10}",
        *(
            f"{name:<20}{one:>8.3f}{other:>10.3f}"
            for name, one, other in zip(bundle.labels.names, true, expected, strict=True)
        ),
        f"\nms per image, median: mask {mask:.2f}, expected IoU {own:.2f}",
    ]


if __name__ == "__main__":
    main()

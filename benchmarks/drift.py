"""How often a drift is noticed that is there, and one that is not.

    python benchmarks/drift.py --model MODEL --images photos --json drift.json

The images are segmented as they are, blurred, darkened, with noise, and turned. Then they are
divided at random, again and again: one half stands for the images of the training, and the other
half, corrupted or not, for the images of a bucket. A line has the share of these divisions in
which the bucket is said to have drifted, and the three features that are moved the furthest, with
the median of their distances. In the first line, of clean images, every drift is a false alarm.
"""

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tyro
from expected_iou import CORRUPTIONS, corrupt
from figures import describe_machine, write_figures
from PIL import Image

from segray.bulk.config import SegmentConfig
from segray.bulk.drift import Drift, DriftCounter
from segray.bulk.plan import make_plan
from segray.bulk.run import segment
from segray.model.bundle import ONNX, open_bundle
from segray.model.reference import Counts, count_features, features_of
from segray.pixels.decoding import read_picture
from segray.pixels.framing import Frame
from segray.pixels.labels import Labels
from segray.storage.tables import read_tables
from segray.storage.uri import join_uri

_FEATURES_SHOWN = 3


@dataclass(frozen=True)
class DriftBenchmark:
    """Print how often a drift is noticed, for images clean and corrupted."""

    model: str
    """A model bundle."""
    images: str
    """A folder of images."""
    splits: int = 100
    """Divisions of the images."""
    json: str | None = None
    """File that receives the figures of all lines."""


def main() -> None:
    config = tyro.cli(DriftBenchmark)
    labels = open_bundle(config.model, [ONNX]).labels
    files = sorted(path for path in Path(config.images).iterdir() if path.is_file())
    print(f"{describe_machine()}; {len(files)} images, {config.splits} splits")
    print(f"{'':<16}{'noticed':>8}   moved the furthest, median distances", flush=True)
    lines, clean = [], None
    for name, strengths in CORRUPTIONS.items():
        for strength in strengths:
            rows = _segment(config.model, files, name, strength)
            clean = rows if clean is None else clean
            drifts = list(_divide(clean, rows, labels, config.splits))
            lines.append(_summarise(name, strength, drifts))
            print(_format(lines[-1]), flush=True)
    write_figures(config.json, config, lines=lines)


def _segment(model: str, files: list[Path], name: str, strength: float) -> pa.Table:
    """Segment all images, corrupted alike, in this process; return the rows in their order."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        for number, file in enumerate(files):
            content = file.read_bytes()
            picture = read_picture(content, 32)
            pixels = read_picture(content, Frame(picture.height, picture.width)).pixels
            corrupted = Image.fromarray(corrupt(pixels, name, strength, rng))
            corrupted.save(images / f"{number:08}.png", compress_level=1)
        config = SegmentConfig(
            model=model, images=str(images), output=join_uri(folder, "out"), workers=0
        )
        with make_plan(config) as plan:
            segment(plan, on_ray=False)
        tables = list(read_tables(join_uri(plan.output, "results")))
    return pa.concat_tables(tables).drop_columns("mask").sort_by("uri")


def _divide(clean: pa.Table, rows: pa.Table, labels: Labels, splits: int) -> Iterator[Drift]:
    """The drift of one half of the rows from the other, clean half, for each division."""
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(clean))
        half = len(order) // 2
        counter = DriftCounter(_make_reference(clean.take(order[:half]), labels), labels)
        counter.add(rows.take(order[half:]))
        if drift := counter.finish():
            yield drift


def _make_reference(rows: pa.Table, labels: Labels) -> dict[str, Counts]:
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    return count_features(features_of(labels), columns)


def _summarise(name: str, strength: float, drifts: list[Drift]) -> dict[str, object]:
    distances: dict[str, list[float]] = {}
    for drift in drifts:
        for feature in drift.features:
            distances.setdefault(feature.feature.name, []).append(feature.distance)
    medians = {feature: statistics.median(found) for feature, found in distances.items()}
    return {
        "corruption": name,
        "strength": strength,
        "noticed": sum(bool(drift.moved) for drift in drifts) / len(drifts),
        "distances": dict(sorted(medians.items(), key=lambda item: -item[1])),
    }


def _format(line: dict[str, object]) -> str:
    """A line of the table."""
    strength = f"{line['strength']:g}" if line["strength"] else ""
    furthest = list(line["distances"].items())[:_FEATURES_SHOWN]
    shown = ", ".join(f"{name} {distance:.2f}" for name, distance in furthest)
    return f"{line['corruption']:<10}{strength:<6}{line['noticed']:>8.0%}   {shown}"


if __name__ == "__main__":
    main()

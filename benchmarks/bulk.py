"""How fast a folder of images is segmented, beside what people do without segray.

    python benchmarks/bulk.py --model MODEL --images photos        # three rounds of all sides
    python benchmarks/bulk.py --rounds 1 --sides segray raydata    # drawn images, a random model
    python benchmarks/bulk.py --megapixels 12 --count 40           # drawn images of that size
    python benchmarks/bulk.py --fit tile --megapixels 12 --count 4 --sides segray loop

Sides: `segray`, jobs/segment.py as it stands (in its own process for so few images),
`segray-regions` with --regions, `segray-ray` with --workers 2, `segray-tf` with --engine
tensorflow; `raydata`, Ray Data as its documentation shows it: read_images, one predictor actor,
write_parquet; `tfdata`, one process with tf.data and pandas; `onnx` and `tf`, the bare forward pass
over images in memory, again and again. All sides but the bare ones write a PNG mask of each image's
own size and the pixels of each class; `raydata` and `tfdata` with TensorFlow, which resizes the
logits and takes the winner. With --fit tile, segray slides windows over the images, and `loop` does
so as people write it: one process, one window at a time, the logits of the whole image in memory.

Each run is a process of its own, one after the other. What it writes tells the time: the first file
of results, and the images in the later files over the time until the last. Memory is that of the
process and all below it, shared pages counted once (PSS), looked at ten times a second.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import tyro
from figures import describe_machine, write_figures
from PIL import Image

Side = Literal[
    "segray",
    "segray-regions",
    "segray-ray",
    "segray-tf",
    "raydata",
    "tfdata",
    "loop",
    "onnx",
    "tf",
]

ROOT = Path(__file__).parent.parent
SIDES = str(Path(__file__).parent / "bulk_sides.py")
NAMES: dict[Side, str] = {
    "segray": "segray",
    "segray-regions": "segray --regions",
    "segray-ray": "segray --workers 2",
    "segray-tf": "segray --engine tensorflow",
    "raydata": "Ray Data as documented",
    "tfdata": "tf.data and pandas",
    "loop": "a loop over windows",
    "onnx": "bare ONNX Runtime",
    "tf": "bare TensorFlow",
}


@dataclass(frozen=True)
class BulkBenchmark:
    """Print images/s of segray's bulk job and of the usual ways."""

    model: str | None = None
    """A model bundle; default: one of random weights, 128x128, three classes."""
    fit: Literal["squash", "tile"] = "squash"
    """How the default model takes images; tile: in windows of 256x256 at their own resolution."""
    images: str | None = None
    """A local folder of images; default: drawn ones."""
    count: int = 100
    """How many images to draw."""
    megapixels: float = 0.2
    """The size of drawn images."""
    rounds: int = 3
    """How often each side runs."""
    sides: tuple[Side, ...] = (
        "segray",
        "segray-ray",
        "segray-tf",
        "raydata",
        "tfdata",
        "onnx",
        "tf",
    )
    """Which sides."""
    json: str | None = None
    """File that receives the figures of every round."""


@dataclass(frozen=True)
class Figures:
    """What came of one run; None where a side has no such figure.

    Attributes:
        whole: seconds from the start of its process to the end.
        first: seconds until the first results.
        rate: images/s from then on.
        memory: the greatest, in MB.
    """

    whole: float
    first: float | None
    rate: float | None
    memory: float


def main() -> None:
    config = tyro.cli(BulkBenchmark)
    print(_describe(config), flush=True)
    rounds: dict[Side, list[Figures]] = {side: [] for side in config.sides}
    with tempfile.TemporaryDirectory() as name:
        images = config.images or _draw_images(Path(name, "images"), config)
        model = config.model or _make_model(Path(name, "model"), config.fit)
        for number in range(1, config.rounds + 1):
            for side in config.sides:
                with tempfile.TemporaryDirectory(dir=name) as output:
                    figures = _run(side, model, images, Path(output, "out"))
                rounds[side].append(figures)
                print(
                    f"round {number}/{config.rounds}  {NAMES[side]:<27} {figures}", file=sys.stderr
                )
    print("\n".join(_make_table(rounds)), flush=True)
    write_figures(
        config.json,
        config,
        sides={side: [asdict(figures) for figures in runs] for side, runs in rounds.items()},
    )


def _describe(config: BulkBenchmark) -> str:
    return f"{describe_machine()}; {config.rounds} round(s)"


def _make_table(rounds: dict[Side, list[Figures]]) -> list[str]:
    """A line for each side: medians over its rounds."""

    def median(values: list[float | None], places: int) -> str:
        known = [value for value in values if value is not None]
        return f"{statistics.median(known):.{places}f}" if known else "-"

    lines = [f"{'':<27} {'whole s':>8} {'first s':>8} {'images/s':>9} {'peak MB':>8}"]
    for side, runs in rounds.items():
        lines.append(
            f"{NAMES[side]:<27} {median([run.whole for run in runs], 1):>8} "
            f"{median([run.first for run in runs], 1):>8} "
            f"{median([run.rate for run in runs], 1):>9} "
            f"{median([run.memory for run in runs], 0):>8}"
        )
    return lines


def _run(side: Side, model: str, images: str, output: Path) -> Figures:
    if side.startswith("segray"):
        command = [str(ROOT / "jobs" / "segment.py"), "--model", model, "--images", images]
        command += ["--output", str(output), "--max-error-rate", "1"]
        if side == "segray-regions":
            command += ["--regions"]
        if side == "segray-ray":
            command += ["--workers", "2"]
        if side == "segray-tf":
            command += ["--engine", "tensorflow"]
    else:
        output.mkdir()
        command = [SIDES, side, model, images, str(output)]
    begun, begun_at = time.monotonic(), time.time()
    process = subprocess.Popen(
        [sys.executable, *command],
        # A cluster of its own, where a side needs one; segray in its own process where it has none.
        env={**os.environ, "RAY_ADDRESS": "local" if side in ("segray-ray", "raydata") else ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = _watch_memory(process)
    text, _ = process.communicate()
    whole = time.monotonic() - begun
    if process.returncode:
        raise SystemExit(f"{NAMES[side]} ended with {process.returncode}:\n{text[-3000:]}")
    if side in ("onnx", "tf"):
        return Figures(whole, None, float(text.split()[-1]), peak())
    files = sorted(
        (file.stat().st_mtime, pq.read_metadata(file).num_rows)
        for file in (output / "results").glob("*.parquet")
    )
    first, last = files[0][0], files[-1][0]
    later = sum(rows for _, rows in files[1:])
    return Figures(whole, first - begun_at, later / (last - first) if later else None, peak())


def _watch_memory(process: subprocess.Popen[str]) -> Any:
    """Look at the memory of a process and those below it; call the result for the peak in MB."""
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(0.1)

    thread = threading.Thread(target=watch)
    thread.start()

    def result() -> float:
        thread.join()
        return peak

    return result


def _memory(root: int) -> float:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
        except OSError:
            continue  # it has just ended
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def _draw_images(folder: Path, config: BulkBenchmark) -> str:
    folder.mkdir()
    width = round((config.megapixels * 1e6 * 4 / 3) ** 0.5)
    rng = np.random.default_rng(0)
    for number in range(config.count):
        cells = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(cells).resize((width, width * 3 // 4), Image.Resampling.BICUBIC)
        # Photographs are not smooth: noise brings the file to a photograph's size.
        pixels = np.asarray(image, np.int16) + rng.integers(-8, 9, image.size[::-1])[..., None]
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg")
    return str(folder)


def _make_model(folder: Path, fit: str) -> str:
    subprocess.run(
        [sys.executable, SIDES, "model", str(folder), fit],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return str(folder)


if __name__ == "__main__":
    main()

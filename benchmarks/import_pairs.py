"""How fast pairs are decoded, how much memory that takes, and that it is done once.

    python benchmarks/import_pairs.py                           # 10,000 pairs, some minutes
    python benchmarks/import_pairs.py --pairs 200 --image-size 32

Small pairs (JPEG and PNG) are drawn into a temporary folder, decoded by all of a Ray on this
machine as `segray.training.run.train` does it, and read by an actor in the order of three epochs:
once kept in Ray's object store, where the files are moved away before the third epoch, and once
streamed, decoded anew each time. A worker in training has TensorFlow in its memory beside what is
counted here.

RSS counts the pages of the object store in every process that has touched them; PSS shares them
out among these processes, and the last column leaves them out. (USS would not: pages that only one
process has touched yet count as its own there.) Each is the greatest of samples taken all the time.
"""

import itertools
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import ray
import tyro
from figures import describe_machine
from PIL import Image

from segray.data.pairs import find_pairs
from segray.job import start_ray
from segray.pixels.framing import Frame
from segray.pixels.labels import Labels
from segray.training.data.augmentation import Augmentation
from segray.training.data.batches import draw_epoch
from segray.training.data.examples import Decoded, Examples, decode_pairs

LABELS = Labels.parse(["first=1", "second=2"])
EPOCHS = 3
_SECONDS_BETWEEN_SAMPLES = 0.2
_KINDS = ("RSS", "PSS", "PSS, store apart")
# What Ray calls a process that runs one of segray's tasks, or waits for one.
_POOL = ("_decode", "_check_batch", "IDLE")

# MB of each of `_KINDS`.
Memory = tuple[float, float, float]


@dataclass(frozen=True)
class ImportBenchmark:
    """Print pairs/s of decoding, seconds of reading, and the memory that both take."""

    pairs: int = 10_000
    """How many there are."""
    width: int = 64
    """Of the images in their files, in pixels."""
    height: int = 48
    """Of the images in their files, in pixels."""
    image_size: int = 128
    """Side of the square that they are decoded to, in pixels."""
    batch_size: int = 16
    """Pairs that are read at a time."""


@dataclass
class Outcome:
    """What came of one way of keeping the pairs.

    Attributes:
        mode: ``kept`` or ``streamed``.
        decoding: seconds in which all pairs were decoded, once.
        reading: seconds of each epoch.
        memory: of each kind of process the peak, as `_KINDS` orders them.
    """

    mode: str
    decoding: float = 0.0
    reading: list[float] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)


class Sampler:
    """Watches the memory of this process and of all processes of the Ray that it started."""

    def __init__(self) -> None:
        self._peaks: dict[int, Memory] = {}
        self._pool: set[int] = set()
        self._stopped = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take samples while the block runs; what was seen before is forgotten."""
        self._peaks, self._pool = {}, set()
        self._stopped.clear()
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def peak(self, process: int) -> Memory:
        """The peak of a process."""
        return self._peaks[process]

    def pool(self) -> dict[int, Memory]:
        """The peaks of the processes that tasks run in, busy or idle."""
        return {process: self._peaks[process] for process in self._pool}

    def _watch(self) -> None:
        last = False
        while not last:
            # One more once it is stopped: what came and went between two samples waits there still.
            last = self._stopped.wait(_SECONDS_BETWEEN_SAMPLES)
            for process, name in [(os.getpid(), ""), *_ray_workers()]:
                memory = read_memory(process)
                if memory is None:
                    continue
                before = self._peaks.get(process, (0.0, 0.0, 0.0))
                now = tuple(map(max, before, memory))
                self._peaks[process] = (now[0], now[1], now[2])
                if any(word in name for word in _POOL):
                    self._pool.add(process)


def _ray_workers() -> list[tuple[int, str]]:
    """The worker processes of the Ray that this process started, with what they do."""
    children: dict[int, list[int]] = {}
    names = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            name = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode()
        except OSError:
            continue  # it has ended
        children.setdefault(parent, []).append(int(folder.name))
        names[int(folder.name)] = name
    found, left = [], [os.getpid()]
    while left:
        below = children.get(left.pop(), [])
        left += below
        found += [(child, names[child]) for child in below if names[child].startswith("ray::")]
    return found


def read_memory(process: int) -> Memory | None:
    """What a process holds, in MB, as Linux tells it; None if it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    apart = kilobytes["Pss"] - kilobytes["Pss_Shmem"]
    return kilobytes["Rss"] * 1.024e-3, kilobytes["Pss"] * 1.024e-3, apart * 1.024e-3


class Reader:
    """Reads as a worker in training does."""

    def __init__(self, examples: Examples, batch_size: int) -> None:
        self._examples, self._batch_size = examples.open(), batch_size
        self._sizes = examples.frame.shape

    def process(self) -> int:
        """The number of this process."""
        return os.getpid()

    def read_epoch(self, epoch: int) -> float:
        """Go through all batches of an epoch, and tell how many seconds that took."""
        started = time.monotonic()
        count = len(self._examples)
        draws, again = itertools.tee(
            draw_epoch(count, self._batch_size, 0, epoch, 0, 1, Augmentation(), *self._sizes)
        )
        arrays = self._examples.read(draw.indices for draw in draws)
        for draw, (images, masks) in zip(again, arrays, strict=True):
            assert len(draw.indices) == len(images) == len(masks)
        return time.monotonic() - started


def main() -> None:
    config = tyro.cli(ImportBenchmark)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder, config)
        os.environ["RAY_ADDRESS"] = "local"
        start_ray(use_gpu=False)
        print(describe(config), flush=True)
        outcomes = [measure(mode, folder, config) for mode in ("kept", "streamed")]
        ray.shutdown()
    print("\n".join(make_tables(outcomes, config.pairs)))


def describe(config: ImportBenchmark) -> str:
    """The machine, the versions and the settings, in a line."""
    decoded = config.pairs * config.image_size**2 * 4 / 1e6
    return (
        f"{describe_machine()}; {config.pairs} pairs of {config.width}x"
        f"{config.height}, JPEG and PNG, decoded to {config.image_size}x{config.image_size} "
        f"({decoded:.0f} MB in all), read in batches of {config.batch_size}"
    )


def measure(mode: str, folder: Path, config: ImportBenchmark) -> Outcome:
    """Decode all pairs, then read them in three epochs."""
    outcome, sampler = Outcome(mode), Sampler()
    outcome.memory["driver, before"] = read_memory(os.getpid()) or (0.0, 0.0, 0.0)
    with sampler.running():
        started = time.monotonic()
        decoded = _decode(folder, config, keep=mode == "kept")
        outcome.decoding = time.monotonic() - started
    outcome.memory["driver, decoding"] = sampler.peak(os.getpid())
    outcome.memory.update(_largest(sampler.pool(), "decoding"))
    with sampler.running():
        reader = ray.remote(num_cpus=1)(Reader).remote(decoded.examples, config.batch_size)
        for epoch in range(1, EPOCHS + 1):
            if mode == "kept" and epoch == EPOCHS:
                (folder / "images").rename(folder / "images, away")
            outcome.reading.append(ray.get(reader.read_epoch.remote(epoch)))
        process = ray.get(reader.process.remote())
    if mode == "kept":
        (folder / "images, away").rename(folder / "images")
    outcome.memory["driver, reading"] = sampler.peak(os.getpid())
    outcome.memory["reading worker"] = sampler.peak(process)
    if mode == "streamed":
        pool = sampler.pool()
        pool.pop(process, None)
        outcome.memory.update(_largest(pool, "reading"))
    ray.kill(reader)
    return outcome


def _decode(folder: Path, config: ImportBenchmark, keep: bool) -> Decoded:
    pairs = find_pairs(str(folder / "images"), str(folder / "masks")).pairs
    decoded = decode_pairs(
        pairs, LABELS, Frame(config.image_size, config.image_size), keep, lambda done: None
    )
    assert len(decoded.examples) == config.pairs, decoded.skipped[:1]
    return decoded


def _largest(pool: dict[int, Memory], doing: str) -> dict[str, Memory]:
    """Of each kind of memory the most that one of the processes held."""
    rss, pss, uss = (max(memory[kind] for memory in pool.values()) for kind in range(3))
    return {f"largest of {len(pool)} task workers, {doing}": (rss, pss, uss)}


def make_tables(outcomes: list[Outcome], pairs: int) -> list[str]:
    """Seconds, then memory."""
    epochs = "".join(f"{f'epoch {i}, s':>12}" for i in range(1, EPOCHS + 1))
    lines = [f"{'':<10}{'decoding, s':>12}{'pairs/s':>9}{epochs}"]
    for outcome in outcomes:
        seconds = "".join(f"{value:>12.2f}" for value in outcome.reading)
        lines.append(
            f"{outcome.mode:<10}{outcome.decoding:>12.2f}{pairs / outcome.decoding:>9.0f}{seconds}"
        )
    lines += [
        "kept: the images' files were away in epoch 3",
        "",
        f"{'peak memory, MB':<48}" + "".join(f"{kind:>18}" for kind in _KINDS),
    ]
    for outcome in outcomes:
        for name, memory in outcome.memory.items():
            values = "".join(f"{value:>18.0f}" for value in memory)
            lines.append(f"{outcome.mode:<10}{name:<38}{values}")
    return lines


def write_pairs(folder: Path, config: ImportBenchmark) -> None:
    """Draw the pairs on all cores."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    chunks = [range(i, config.pairs, 64) for i in range(64)]
    sizes = (config.width, config.height)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        done = [pool.submit(_write_some, folder, list(chunk), *sizes) for chunk in chunks]
        for item in done:
            item.result()


def _write_some(folder: Path, numbers: list[int], width: int, height: int) -> None:
    for number in numbers:
        rng = np.random.default_rng(number)
        colours = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        image = colours.resize((width, height), Image.Resampling.BICUBIC)
        mask = np.asarray(image.convert("L")) // 128 + 1
        image.save(folder / "images" / f"pair_{number:06d}.jpg")
        Image.fromarray(mask).save(folder / "masks" / f"pair_{number:06d}.png")


if __name__ == "__main__":
    main()

"""How many images/s the CPUs can feed a GPU with, measured without one.

    python benchmarks/gpu_pipeline.py --model MODEL --images photos
    python benchmarks/gpu_pipeline.py --sizes 128 --count 200       # drawn images, a random model

A GPU that is none (`ray.init(num_gpus=1)`) stands for placement, and a predictor that has its
logits ready for the card: it answers at once, or like a card of --rate images/s. `host` is the same
engine with the same predictor in a process, one for each core, each kept on a core of its own.
`ray` is the bulk job as it stands, fed by the workers of so many cores. The workers are kept on
those cores and everything else off them, unless the machine has no others: then the workers' cores
pay for the card's process and the driver, too. Rates are counted from the first file of results to
the last.

`worker`, `card` and `rest` are the CPU milliseconds per image of those processes, which another job
on the machine disturbs less than images/s. The second table has the CPU milliseconds that an image
takes at each stage, in one thread; `to the GPU` is the worker's part of sending a batch and taking
its logits.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import tyro
from figures import describe_machine, write_figures
from PIL import Image

from segray.bulk.config import SegmentConfig
from segray.bulk.gpus import GpuPool
from segray.bulk.pipeline import CHUNKS_AT_ONCE, Pipeline, PipelineConfig
from segray.bulk.plan import Plan, make_plan
from segray.bulk.sizes import split_into_chunks
from segray.bulk.tally import Tally
from segray.pixels.decoding import read_picture
from segray.pixels.masks import encode_mask, segment_logits
from segray.storage.listing import Entry
from segray.storage.objects import fetch
from segray.storage.tables import PartWriter, results_schema

SIDES = str(Path(__file__).parent / "bulk_sides.py")
_BATCH = 32
_CHUNK = 16
_NAMES = {"host": "host", "ray": "at once", "rate": "--rate"}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class PipelineBenchmark:
    """Print what the CPUs of this machine can feed a GPU with."""

    model: str | None = None
    """A model bundle, for its classes; default: one of random weights, three classes."""
    images: str | None = None
    """A folder of images; default: drawn ones."""
    count: int = 3000
    """How many images a run segments, at most; and how many are drawn."""
    sizes: tuple[int, ...] = (128, 224, 512)
    """Sides of the network's square, in pixels."""
    rate: float = 2000.0
    """Images/s of the slower predictor."""
    rounds: int = 1
    """How often each side runs."""
    json: str | None = None
    """File that receives the figures of every round."""


class ReadyPredictor:
    """A card whose logits are ready: float32 [B, S, S, C] of smooth blobs.

    Args:
        size: S.
        classes: C.
        rate: images/s that it answers with, one batch after the other; None for at once.
    """

    def __init__(self, size: int, classes: int, rate: float | None) -> None:
        rng = np.random.default_rng(0)
        planes = [
            np.asarray(
                Image.fromarray(rng.normal(size=(8, 8)).astype(np.float32)).resize(
                    (size, size), Image.Resampling.BICUBIC
                )
            )
            for _ in range(classes)
        ]
        self._logits = np.repeat(np.stack(planes, -1)[None] * 4, _BATCH, axis=0)
        self._rate, self._card = rate, threading.Lock()

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if self._rate:
            with self._card:
                time.sleep(len(images) / self._rate)
        return self._logits[: len(images)]


def main() -> None:
    if sys.argv[1] in _PROCESSES:  # one side, in a process of its own
        _PROCESSES[sys.argv[1]](json.loads(sys.argv[2]))
        return
    config = tyro.cli(PipelineBenchmark)
    print(describe_machine(), flush=True)
    figures: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        images = config.images or _draw_images(Path(name, "images"), config.count)
        model = config.model or _make_model(Path(name, "model"))
        for number in range(config.rounds):
            for size in config.sizes:
                for side in ("stages", "host 1", "ray 1", "rate 1", "host 2", "ray 2", "rate 2"):
                    kind, _, cores = side.partition(" ")
                    with tempfile.TemporaryDirectory(dir=name) as output:
                        task = {"model": model, "images": images, "output": output, "size": size}
                        task |= {"cores": int(cores or 1), "count": config.count}
                        task["rate"] = config.rate if kind == "rate" else None
                        figure = _run("ray" if kind == "rate" else kind, task)
                    figures.setdefault(f"{size} {side}", []).append(figure)
                    print(f"round {number + 1}  {size} px  {side:<8} {figure}", file=sys.stderr)
    _print_tables(config, figures)
    write_figures(config.json, config, figures=figures)


def _print_tables(config: PipelineBenchmark, figures: dict[str, list[Any]]) -> None:
    def median(size: int, side: str, name: str) -> float:
        return statistics.median(run[name] for run in figures[f"{size} {side}"])

    print(f"\n{'':<20}{'cores':>6}{'images/s':>10}{'':>7}{'worker':>8}{'card':>8}{'rest':>8}")
    for size in config.sizes:
        for side in ("host 1", "ray 1", "rate 1", "host 2", "ray 2", "rate 2"):
            kind, _, cores = side.partition(" ")
            rate, host = median(size, side, "rate"), median(size, f"host {cores}", "rate")
            line = f"{size:>5} px  {_NAMES[kind]:<10}{cores:>6}{rate:>10.1f}{rate / host:>7.0%}"
            for name in ("worker", "card", "rest") if kind != "host" else ("worker",):
                line += f"{median(size, side, name):>8.2f}"
            print(line)
    stages = list(figures[f"{config.sizes[0]} stages"][0])
    print(f"\n{'CPU ms per image':<18}" + "".join(f"{stage:>12}" for stage in [*stages, "sum"]))
    for size in config.sizes:
        runs = figures[f"{size} stages"]
        times = [statistics.median(run[stage] for run in runs) for stage in stages]
        print(f"{size:>5} px{'':<10}" + "".join(f"{ms:>12.2f}" for ms in [*times, sum(times)]))


def _run(side: str, task: dict[str, Any]) -> Any:
    """What a side prints last, as JSON; of several processes of the host side, the sum."""
    if side != "host":
        return _finish(_start(side, task))
    processes = [_start(side, {**task, "core": core}) for core in range(task["cores"])]
    runs = [_finish(process) for process in processes]
    worker = statistics.mean(run["worker"] for run in runs)
    return {"rate": sum(run["rate"] for run in runs), "worker": worker}


def _start(side: str, task: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, side, json.dumps(task)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> Any:
    text, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors[-3000:])
    return json.loads(text.splitlines()[-1])


def _with_plan(task: dict[str, Any], use: Callable[[Plan], Any]) -> Any:
    config = SegmentConfig(
        model=task["model"],
        images=task["images"],
        output=f"{task['output']}/{task.get('core', 'out')}",
        limit=task["count"],
        use_gpu=True,
        engine="onnx",
        batch_size=_BATCH,
    )
    with make_plan(config) as plan:
        size = task["size"]
        architecture = replace(plan.bundle.architecture, height=size, width=size)
        return use(replace(plan, bundle=replace(plan.bundle, architecture=architecture)))


def _loader(plan: Plan, rate: float | None) -> Callable[[], ReadyPredictor]:
    return partial(ReadyPredictor, plan.bundle.architecture.height, len(plan.bundle.labels), rate)


def _files(plan: Plan) -> list[tuple[float, int]]:
    """When each file of results was written, and its rows."""
    return sorted(
        (file.stat().st_mtime, pq.read_metadata(file).num_rows)
        for file in Path(plan.output, "results").glob("*.parquet")
    )


def _rate(plan: Plan) -> float:
    """Images/s from the first file of results to the last."""
    files = _files(plan)
    return sum(rows for _, rows in files[1:]) / (files[-1][0] - files[0][0])


def _host(task: dict[str, Any]) -> None:
    """The engine of one worker, alone on a core."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[task["core"]]})

    def use(plan: Plan) -> None:
        pipeline = Pipeline(PipelineConfig.of(plan, 1), _loader(plan, None)(), Tally())
        chunks = split_into_chunks(
            plan.search.list_and_record(0, plan.done, lambda found: None), _CHUNK
        )
        begun = time.process_time()
        with ThreadPoolExecutor(CHUNKS_AT_ONCE) as lanes:
            list(lanes.map(pipeline.segment, chunks))
        spent = 1000 * (time.process_time() - begun) / sum(rows for _, rows in _files(plan))
        print(json.dumps({"rate": _rate(plan), "worker": spent}))

    _with_plan(task, use)


def _ray(task: dict[str, Any]) -> None:
    """The job, with workers on so many cores."""
    import ray

    from segray.bulk.cluster import segment_on_ray
    from segray.job import start_ray

    def use(plan: Plan) -> None:
        segment_on_ray(plan, _loader(plan, task["rate"]))
        print(json.dumps({"rate": _rate(plan), **_spent(_files(plan), moments)}))

    os.environ["RAY_ADDRESS"] = "local"
    os.environ["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": task["cores"], "GPU": 1})
    start_ray(use_gpu=True, niceness=0)
    assert ray.cluster_resources()["GPU"] == 1
    moments: list[tuple[float, dict[str, float]]] = []
    threading.Thread(target=_watch, args=(moments, task["cores"]), daemon=True).start()
    _with_plan(task, use)


def _spent(
    files: list[tuple[float, int]], moments: list[tuple[float, dict[str, float]]]
) -> dict[str, float]:
    """CPU milliseconds per image while there were results: of workers, the card, and the rest."""
    during = [moment for moment in moments if files[0][0] <= moment[0] <= files[-1][0]]
    (begun, first), (ended, last) = during[0], during[-1]
    images = sum(rows for written, rows in files if begun < written <= ended)
    return {name: 1000 * (last[name] - first.get(name, 0.0)) / images for name in last}


def _watch(moments: list[tuple[float, dict[str, float]]], cores: int) -> None:
    """Note what Ray's processes and this one have spent so far, again and again.

    Args:
        moments: receives the time and the CPU seconds until then, by kinds of processes.
        cores: that workers are kept on, and everything else off them if there are more.
    """
    available = sorted(os.sched_getaffinity(0))
    workers, others = set(available[:cores]), set(available[cores:])
    spent: dict[str, tuple[str, float]] = {}
    while True:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                name = (folder / "cmdline").read_text()
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if os.getpid() not in _lineage(int(folder.name)):
                    continue
                kind = "worker" if "MapWorker" in name else "card" if "GpuActor" in name else "rest"
                spent[folder.name] = kind, (int(fields[11]) + int(fields[12])) / _TICKS
                for thread in (folder / "task").iterdir() if others else ():
                    os.sched_setaffinity(int(thread.name), workers if kind == "worker" else others)
            except OSError:
                continue  # it has just ended
        sums = dict.fromkeys(("worker", "card", "rest"), 0.0)
        for kind, seconds in spent.values():
            sums[kind] += seconds
        moments.append((time.time(), sums))
        time.sleep(0.5)


def _lineage(pid: int) -> set[int]:
    """A process and those above it."""
    found = set()
    while pid:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def _stages(task: dict[str, Any]) -> None:
    """CPU milliseconds that an image takes, stage by stage."""
    import ray

    from segray.job import start_ray

    spent = dict.fromkeys(("fetch", "decode", "mask, PNG", "write", "to the GPU"), 0.0)

    def timed(stage: str, do: Callable[[], Any]) -> Any:
        begun = time.process_time()
        result = do()
        spent[stage] += time.process_time() - begun
        return result

    def use(plan: Plan) -> None:
        entries: list[Entry] = next(plan.search.list_and_record(0, plan.done, lambda found: None))[
            :128
        ]
        labels, load = plan.bundle.labels, _loader(plan, None)
        pool = GpuPool(load, 1)
        with pool.running():
            remote = pool.connect()
            remote.predict(np.zeros((1, task["size"], task["size"], 3), np.uint8))
            _measure(entries, labels, load(), remote)

    def _measure(entries: list[Entry], labels: Any, predictor: Any, remote: Any) -> None:
        pictures = []
        for entry in entries:
            content = timed("fetch", lambda entry=entry: fetch(entry.uri, entry.size, entry.etag))
            pictures.append(timed("decode", lambda c=content: read_picture(c, task["size"])))
        rows = []
        for start in range(0, len(pictures), _BATCH):
            batch = pictures[start : start + _BATCH]
            pixels = np.stack([picture.pixels for picture in batch])
            timed("to the GPU", lambda pixels=pixels: remote.predict(pixels))
            for picture, logits in zip(batch, predictor.predict(pixels), strict=True):

                def make(picture: Any = picture, logits: Any = logits) -> bytes:
                    mask, _ = segment_logits(logits, picture.height, picture.width)
                    return encode_mask(mask, labels.palette)

                rows.append(
                    {"id": len(rows), "uri": "", "mask": {"bytes": timed("mask, PNG", make)}}
                )
        writer = PartWriter(task["output"], "stages", results_schema(labels))
        writer.rows = rows
        timed("write", writer.flush)
        print(json.dumps({name: 1000 * seconds / len(rows) for name, seconds in spent.items()}))

    os.environ["RAY_ADDRESS"] = "local"
    os.environ["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": 2, "GPU": 1})
    start_ray(use_gpu=True, niceness=0)
    assert ray.is_initialized()
    _with_plan(task, use)


def _draw_images(folder: Path, count: int) -> str:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        cells = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(cells).resize((500, 375), Image.Resampling.BICUBIC)
        # Photographs are not smooth: noise brings the file to a photograph's size.
        pixels = np.asarray(image, np.int16) + rng.integers(-8, 9, (375, 500, 1))
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / f"{number:05}.jpg")
    return str(folder)


def _make_model(folder: Path) -> str:
    command = [sys.executable, SIDES, "model", str(folder)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return str(folder)


_PROCESSES = {"host": _host, "ray": _ray, "stages": _stages}

if __name__ == "__main__":
    main()

"""A segmentation run: from a bucket of images to Parquet."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from segray import __version__
from segray.bulk.plan import Plan, forget_errors, read_ids
from segray.bulk.progress import ProgressLine
from segray.bulk.stages import Predict, decode, fetch
from segray.bulk.write import write
from segray.errors import InputError
from segray.storage.listing import Entry
from segray.storage.tables import read_tables
from segray.storage.uri import join_uri, write_bytes

# Shares of a CPU that a task and a predictor ask Ray for: less than one, so that on any machine,
# one core included, predictors never hold all of the CPUs that the tasks before and after them
# wait for; and different ones, so that Ray does not fuse reading into the predictors, where the
# network would wait for the store.
_TASK_CPUS = 0.25
_PREDICTOR_CPUS = 0.5
# Rows in a results file: few enough that a small job is spread over the CPUs and seldom loses work,
# many enough that a large one leaves no heap of small files.
_FILE_ROWS = (64, 2048)
# What bounds the memory of a task: the files it reads, and the logits it makes masks of.
_BLOCK_BYTES = 1 << 27
_FILE_LOGITS_BYTES = 1 << 27

_PACKAGES = ("ray", "onnxruntime", "tensorflow", "pillow", "pyarrow", "numpy")


@dataclass(frozen=True)
class SegmentSummary:
    """What is in the output after a run.

    Attributes:
        output: its absolute URI.
        listed: images that the listing found.
        segmented: of them, those with a row in results.
        failed: of them, those with a row in errors.
        processed: images that this run worked on.
        seconds: that this run took from its plan to the last row.
        shares: per class, its share of the pixels of all segmented images; 0 to 1.
    """

    output: str
    listed: int
    segmented: int
    failed: int
    processed: int
    seconds: float
    shares: dict[str, float]

    @property
    def images_per_second(self) -> float:
        """Of this run, the start of its processes included."""
        return self.processed / self.seconds


def segment(plan: Plan, tell: Callable[[str], None]) -> SegmentSummary:
    """Segment the images that a plan found missing; Ray has been started if there are any.

    Args:
        plan: of `segray.bulk.plan.make_plan`.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: something the user gave cannot be used.
    """
    started = time.monotonic()
    if plan.missing:
        tell(f"segmenting {len(plan.missing)} images with {plan.engine}")
        # Ray Data gives a job up after half an hour without a block; nodes may take longer.
        ray.data.DataContext.get_current().execution_no_progress_timeout_s = -1
        forget_errors(plan)
        progress = ProgressLine(len(plan.missing), tell)
        for written in _pipeline(plan).iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in written.to_pylist():
                if row["problem"]:
                    raise InputError(row["problem"])
                progress.add(row["segmented"], row["failed"], row["bytes"])
        progress.finish()
    summary = _summarise(plan, time.monotonic() - started)
    _write_record(plan, summary)
    return summary


def _pipeline(plan: Plan) -> ray.data.Dataset:
    """The whole job: images in, files written, one row of counts out for each."""
    config, bundle = plan.config, plan.bundle
    workers, pool = _predictors(plan)
    block_rows = min(config.batch_size, math.ceil(len(plan.missing) / workers))
    tasks: dict[str, Any] = {"batch_format": "pyarrow", "num_cpus": _TASK_CPUS}
    return (
        ray.data.from_arrow(_as_tables(plan.missing, block_rows))
        .map_batches(fetch, batch_size=None, **tasks)
        .map_batches(decode, batch_size=None, fn_args=(bundle.image_size,), **tasks)
        .map_batches(
            Predict,
            batch_size=config.batch_size,
            batch_format="pyarrow",
            fn_constructor_args=(bundle, plan.engine, 0 if config.use_gpu else 1),
            compute=pool,
            num_cpus=_predictor_cpus(workers),
            num_gpus=1 if config.use_gpu else 0,
        )
        .map_batches(
            write,
            batch_size=_file_rows(plan, workers),
            fn_args=(
                plan.output,
                bundle.labels,
                bundle.image_size,
                config.mask_size,
                bundle.digest,
            ),
            **tasks,
        )
    )


def _predictors(plan: Plan) -> tuple[int, ray.data.ActorPoolStrategy]:
    """How many predictors to start with, and their pool."""
    kind = "GPU" if plan.config.use_gpu else "CPU"
    now = plan.config.workers or int(ray.cluster_resources().get(kind, 0))
    if not now:
        # A cluster that starts its nodes when they are asked for: ask until it has no more.
        return 1, ray.data.ActorPoolStrategy(min_size=1, max_size=len(plan.missing))
    # Never more predictors than images: Ray would keep the idle ones waiting for blocks.
    workers = min(now, len(plan.missing))
    return workers, ray.data.ActorPoolStrategy(size=workers)


def _predictor_cpus(workers: int) -> float:
    """What a predictor asks for: with all of them, half of the CPUs stay free for the tasks."""
    share = min(_PREDICTOR_CPUS, ray.cluster_resources().get("CPU", math.inf) / 2 / workers)
    return math.floor(share * 10_000) / 10_000


def _file_rows(plan: Plan, workers: int) -> int:
    """How many rows a results file gets."""
    low, high = _FILE_ROWS
    logits_bytes = 4 * len(plan.bundle.labels) * plan.bundle.image_size**2
    fitting = max(1, _FILE_LOGITS_BYTES // logits_bytes)
    return min(max(len(plan.missing) // (8 * workers), low), high, fitting)


def _as_tables(missing: list[Entry], rows: int) -> list[pa.Table]:
    """Blocks of a batch at most: Ray deals out blocks, and few large ones reach few workers."""
    blocks: list[list[Entry]] = [[]]
    size = 0
    for entry in missing:
        if blocks[-1] and (len(blocks[-1]) == rows or size + entry.size > _BLOCK_BYTES):
            blocks.append([])
            size = 0
        blocks[-1].append(entry)
        size += entry.size
    return [
        pa.table(
            {
                "id": pa.array([entry.id for entry in block], pa.int64()),
                "uri": [entry.uri for entry in block],
                "size": pa.array([entry.size for entry in block], pa.int64()),
            }
        )
        for block in blocks
    ]


def _summarise(plan: Plan, seconds: float) -> SegmentSummary:
    output, labels = plan.output, plan.bundle.labels
    columns = [f"pixels_{name}" for name in labels.names]
    listed = pa.array(plan.listed, pa.int64())
    pixels = np.zeros(len(labels), dtype=np.int64)
    segmented: set[int] = set()
    for table in read_tables(join_uri(output, "results"), ["id", *columns]):
        # Rows of objects that are gone or have changed stay, and are not of this listing.
        table = table.filter(pc.is_in(table["id"], value_set=listed))
        segmented.update(table["id"].to_pylist())
        pixels += [pc.sum(table[column]).as_py() or 0 for column in columns]
    failed = (plan.listed & set(read_ids(output, "errors"))) - segmented
    lost = len(plan.listed) - len(segmented) - len(failed)
    if lost:
        raise InputError(
            f"{output} has no row for {lost} images that were treated: on several nodes --output "
            "must be in S3 or on a file system that all of them share; run again"
        )
    return SegmentSummary(
        output=output,
        listed=len(plan.listed),
        segmented=len(segmented),
        failed=len(failed),
        processed=len(plan.missing),
        seconds=seconds,
        shares=dict(zip(labels.names, (pixels / max(1, pixels.sum())).tolist(), strict=True)),
    )


def _write_record(plan: Plan, summary: SegmentSummary) -> None:
    record = {
        "configuration": plan.config.to_json(),
        "model": plan.bundle.digest,
        "engine": plan.engine,
        "labels": plan.bundle.labels.to_json(),
        "versions": {"segray": __version__, **{name: version(name) for name in _PACKAGES}},
        "counts": {
            name: getattr(summary, name) for name in ("listed", "segmented", "failed", "processed")
        },
        "seconds": round(summary.seconds, 3),
        "images_per_second": round(summary.images_per_second, 3),
        "shares": summary.shares,
    }
    write_bytes(join_uri(summary.output, "run.json"), json.dumps(record, indent=2).encode())

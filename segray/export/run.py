"""An export run: from the rows of a segmentation to files for other tools."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from segray.data.skipped import Skipped, write_skipped
from segray.errors import InputError
from segray.export.coco import ANNOTATIONS, join_parts, read_part_ids
from segray.export.config import ExportConfig
from segray.export.plan import Plan, make_plan, prepare_export
from segray.export.work import Task, do_work
from segray.progress import ProgressLine
from segray.storage.ids import are_in
from segray.storage.lock import LOCK, hold_lock
from segray.storage.uri import exists, is_local, join_uri
from segray.version import __version__

log = logging.getLogger(__name__)

#: The list of masks that could not be exported, with the reasons.
SKIPPED = "skipped.jsonl"


@dataclass(frozen=True)
class ExportSummary:
    """The content of the output after a run.

    Attributes:
        output: the absolute URI of the output.
        masks: the number of masks that belong in it.
        written: the number of masks that this run exported.
        skipped: the number of masks that could not be exported; each run tries them again.
        seconds: the duration of this run.
    """

    output: str
    masks: int
    written: int
    skipped: int
    seconds: float


def export(config: ExportConfig, start_ray: Callable[[], None]) -> ExportSummary:
    """Export the masks that the output does not contain yet.

    Args:
        config: the flags of jobs/export.py.
        start_ray: called when Ray is needed; not called if this process exports everything.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    started = time.monotonic()
    output = prepare_export(config).output
    with hold_lock(output, config.lock) as check_lock:
        # Inspect the output again under the lock: another run may just have finished.
        plan = make_plan(prepare_export(config))
        if plan.missing and plan.workers != 0:
            start_ray()
        progress = ProgressLine("exporting", "masks", plan.missing)
        written, skipped = 0, list[Skipped]()
        for account in _work(plan):
            for row in account.to_pylist():
                if row["problem"]:
                    raise InputError(row["problem"])
                _check_shared(plan, row["sample"])
                written += row["written"]
                reasons = zip(row["image"], row["reason"], strict=True)
                skipped += [Skipped(image, None, reason) for image, reason in reasons]
                progress.add(row["written"] + len(row["image"]), failed=len(row["image"]))
            check_lock()
        if config.format == "rle":
            _join(plan, len(skipped))
        uri = join_uri(plan.output, SKIPPED)
        if skipped or exists(uri):
            write_skipped(uri, skipped)
    return ExportSummary(
        output=plan.output,
        masks=len(plan.ids),
        written=written,
        skipped=len(skipped),
        seconds=time.monotonic() - started,
    )


def _work(plan: Plan) -> Iterator[pa.Table]:
    config = plan.config
    classes = len(plan.segmentation.classes)
    task = Task(
        config.format,
        config.palette,
        plan.output,
        plan.mirror,
        classes,
        config.max_side,
        plan.segmentation.value_range,
    )
    if plan.workers == 0:
        return (account for piece in plan.work for account in do_work(piece, task))
    if not plan.work:
        return iter(())
    from segray.export.cluster import spread_work
    from segray.nodes import SharedFiles

    files = {
        "--results": plan.work[0]["results"][0].as_py(),
        "--output": join_uri(plan.output, LOCK),
    }
    return spread_work(plan.work, task, plan.workers, SharedFiles.of(files))


def _check_shared(plan: Plan, sample: str | None) -> None:
    """Raise an error if files end up on the local disks of several nodes."""
    if sample and is_local(plan.output) and not exists(join_uri(plan.output, sample)):
        raise InputError(
            f"{join_uri(plan.output, sample)} was written and is not here: on several nodes "
            "--output must be in S3 or on a file system that all of them share"
        )


def _join(plan: Plan, skipped: int) -> None:
    there = read_part_ids(plan.output)
    ids = there[are_in(there, plan.ids)]
    if len(plan.ids) - len(ids) != skipped:
        raise InputError(
            f"{plan.output} lacks {len(plan.ids) - len(ids) - skipped} masks that were exported: "
            "on several nodes --output must be in S3 or on a file system that all of them share"
        )
    info = {
        "description": "semantic masks, a region of each class as one annotation",
        "version": f"segray {__version__}",
        "model": plan.segmentation.model,
        "url": plan.mirror.root,
    }
    if join_parts(plan.output, plan.segmentation.classes, ids, info):
        log.info(f"joined {len(ids)} images into {ANNOTATIONS}")

"""A segmentation run: from a bucket of images to Parquet."""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from segray.bulk.census import Census, take_census
from segray.bulk.config import SegmentConfig
from segray.bulk.here import count_this_node, segment_here
from segray.bulk.manifest import RUN_AGAIN, read_manifest
from segray.bulk.node_time import NodeTime
from segray.bulk.plan import Plan
from segray.bulk.progress import Progress
from segray.bulk.report.page import write_report
from segray.bulk.settings import RECORD
from segray.errors import InputError
from segray.packages import package_versions
from segray.storage.files import write_bytes
from segray.storage.requests import requests_sent
from segray.storage.uri import join_uri

log = logging.getLogger(__name__)

# The exit status if too many images failed, and if not, but they have drifted.
_FAILED, _DRIFTED = 1, 3

_PACKAGES = ("ray", "onnxruntime", "tensorflow", "pillow", "pyarrow", "numpy")


@dataclass(frozen=True)
class SegmentSummary:
    """The content of the output after a run, and the figures of the run.

    Attributes:
        output: its absolute URI.
        census: the counts of the output.
        processed: number of images that this run worked on.
        seconds: time from the plan of this run to its last row.
        shares: per class, its share of the pixels of all segmented images; 0 to 1.
        expected_iou: per class, its expected IoU over all segmented images
            (`segray.pixels.expected`); None for a class that is in none of them.
    """

    output: str
    census: Census
    processed: int
    seconds: float
    shares: dict[str, float]
    expected_iou: dict[str, float | None]

    @property
    def images_per_second(self) -> float:
        """The throughput of this run, the start of its processes included."""
        return self.processed / self.seconds

    @property
    def expected_mean_iou(self) -> float | None:
        """The mean over the classes that are there; None if there are none."""
        known = [iou for iou in self.expected_iou.values() if iou is not None]
        return sum(known) / len(known) if known else None


def segment(plan: Plan, on_ray: bool) -> SegmentSummary:
    """Segment the images that have no row yet, and see to it that each has one.

    Args:
        plan: the result of `segray.bulk.plan.make_plan`.
        on_ray: True if Ray, which has been started, does the work; else this process does.

    Raises:
        InputError: something the user gave cannot be used, or nothing can be written.
    """
    started = time.monotonic()
    images = "images" if plan.missing is None else f"{plan.missing} images"
    if plan.missing != 0:
        log.info(f"segmenting {images} with {plan.engine}" + " in this process" * (not on_ray))
    if on_ray:
        from segray.bulk.cluster import count_nodes, segment_on_ray

        with (hours := NodeTime(count_nodes)).running():
            progress = segment_on_ray(plan)
    else:
        with (hours := NodeTime(count_this_node)).running():
            progress = segment_here(plan)
    seconds = time.monotonic() - started
    plan.check()
    log.info("checking that each image has a row")
    labels = plan.bundle.labels
    plan.forget_done()
    search = plan.search
    manifest = read_manifest(plan.output, search.run, len(search.parts))
    config, unseen = plan.config, manifest.left_out.unseen
    if config.prune and unseen:
        log.warning(
            f"no row is removed: {unseen} files and folders could not be looked at, so that their "
            "images are not known to be gone"
        )
    prune = config.prune and not unseen
    census = take_census(plan.output, manifest, labels, prune, config.regions, plan.reference)
    lost = census.listed - census.segmented - census.failed
    if lost:
        raise InputError(f"{plan.output} has no row for {lost} images that were found: {RUN_AGAIN}")
    last, pixels = progress.timeline[-1], census.histograms.pixels
    total = max(1, int(pixels.sum()))
    ious = census.histograms.overlap.class_iou(plan.bundle.iou_exponent).tolist()
    summary = SegmentSummary(
        output=plan.output,
        census=census,
        processed=last.segmented + last.failed,
        seconds=seconds,
        shares=dict(zip(labels.names, (pixels / total).tolist(), strict=True)),
        expected_iou={
            name: None if math.isnan(iou) else iou
            for name, iou in zip(labels.names, ious, strict=True)
        },
    )
    record = _make_record(plan, summary, progress)
    write_report(plan.output, labels, census, record, progress.timeline)
    record["cost"] = _make_cost(plan, progress, hours)
    write_bytes(join_uri(plan.output, RECORD), json.dumps(record, indent=2).encode())
    return summary


def judge(summary: SegmentSummary, config: SegmentConfig) -> tuple[int, str]:
    """Return the exit status of a run, and what is wrong: 0 and nothing if all is well."""
    census, drift, most = summary.census, summary.census.drift, config.max_drift
    rate = census.failed / max(1, census.listed)
    failed = rate > config.max_error_rate
    problems = []
    if failed:
        problems.append(
            f"{rate:.2%} of the images failed, over --max-error-rate {config.max_error_rate:.2%}"
        )
    distance = drift.distance if drift else None
    if distance is not None and most is not None and distance > most:
        problems.append(
            f"the images have a distance of {distance:.3f} from the training images, over "
            f"--max-drift {most:.3f}"
        )
    return (_FAILED if failed else _DRIFTED if problems else 0), "; ".join(problems)


def _make_record(plan: Plan, summary: SegmentSummary, progress: Progress) -> dict[str, Any]:
    census, names = summary.census, plan.bundle.labels.names
    regions = census.regions and census.regions.regions.tolist()
    return {
        "configuration": plan.config.to_json(),
        "model": plan.bundle.digest,
        "engine": plan.engine,
        "labels": plan.bundle.labels.to_json(),
        "versions": package_versions(*_PACKAGES),
        "counts": {
            "listed": census.listed,
            "segmented": census.segmented,
            "failed": census.failed,
            "processed": summary.processed,
            "stale": census.stale,
            "left_out": {
                name: count
                for name, count in asdict(census.left_out).items()
                if name not in ("images", "missing")
            },
        },
        "seconds": round(summary.seconds, 3),
        "images_per_second": round(summary.images_per_second, 3),
        "shares": summary.shares,
        "expected_mean_iou": summary.expected_mean_iou,
        "expected_iou": summary.expected_iou,
        "drift": census.drift and census.drift.to_json(),
        "regions": regions and dict(zip(names, regions, strict=True)),
        "predictors": progress.predictors,
        "timeline": [list(vars(moment).values()) for moment in progress.timeline],
    }


def _make_cost(plan: Plan, progress: Progress, hours: NodeTime) -> dict[str, Any]:
    requests = requests_sent() - plan.sent + progress.requests
    return {
        "node_hours": round(hours.node_hours, 6),
        "cpu_hours": round(hours.cpu_hours, 6),
        "image_bytes": progress.timeline[-1].bytes,
        "requests": dict(sorted(requests.items())),
    }

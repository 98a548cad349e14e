"""Segment a folder or bucket of images with a trained model.

    python jobs/segment.py                                      # samples, after jobs/train.py
    python jobs/segment.py --model runs/pets/model --images photos --output masks [--dry-run]
    ray job submit --working-dir . -- \\
        python jobs/segment.py --model s3://b/run/model --images s3://b/photos --output s3://b/masks
"""

import logging
import sys

from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.bulk.report.drift import describe_drift
from segray.flags import read_flags
from segray.job import needs_ray, run_job, start_ray
from segray.page.markup import format_confidence

log = logging.getLogger("segray.jobs.segment")


def main() -> int:
    config = read_flags(SegmentConfig)
    with make_plan(config) as plan:
        on_ray = needs_ray(config.workers, plan.is_small)
        if on_ray:
            start_ray(config.use_gpu)
        from segray.bulk import run
        from segray.bulk.forecast.dry_run import show_forecast

        if config.dry_run:
            show_forecast(plan, on_ray)
            return 0
        summary = run.segment(plan, on_ray)
    log.info(f"\n{'class':<20} share of pixels   expected IoU")
    for name, share in summary.shares.items():
        log.info(f"{name:<20} {share:>15.2%} {format_confidence(summary.expected_iou[name]):>14}")
    log.info(f"{'mean':<20} {'':>15} {format_confidence(summary.expected_mean_iou):>14}")
    census = summary.census
    log.info(f"\nsegmented {census.segmented} of {census.listed} images, {census.failed} failed")
    if summary.processed and summary.seconds >= 1:
        log.info(
            f"{summary.images_per_second:.1f} images/s over {summary.seconds:.0f} s, "
            "the start of the workers included"
        )
    log.info(f"masks: {summary.output}/results/*.parquet")
    if census.regions:
        log.info(f"{census.regions.regions.sum()} regions: {summary.output}/regions/*.parquet")
    log.info(describe_drift(census.drift))
    log.info(f"report: {summary.output}/report.html")
    if census.failed:
        log.info(
            f"failures: the report has the reasons, as has {summary.output}/errors/*.parquet; "
            "--retry-errors tries them again"
        )
    if census.stale and not config.prune:
        log.info(
            f"{census.stale} rows are of images that have changed or that this run did not find; "
            "--prune removes them"
        )
    status, problem = run.judge(summary, config)
    if problem:
        print(f"error: {problem}: see {summary.output}/report.html", file=sys.stderr)
    return status


if __name__ == "__main__":
    run_job(main)

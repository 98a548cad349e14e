"""Segment a folder or bucket of images with a trained model.

    python jobs/segment.py                                      # samples, after jobs/train.py
    python jobs/segment.py --model runs/pets/model --images photos --output masks
    ray job submit --working-dir . -- \\
        python jobs/segment.py --model s3://b/run/model --images s3://b/photos --output s3://b/masks
"""

import sys

import tyro

from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.job import has_cluster, run_job, start_ray, tell


def main() -> int:
    config = tyro.cli(SegmentConfig)
    config.s3.set_environment()
    with make_plan(config, tell) as plan:
        if config.workers is None:
            on_ray = has_cluster() or not plan.is_small
        else:
            on_ray = config.workers > 0
        if on_ray:
            start_ray(config.use_gpu)
        from segray.bulk.run import segment

        summary = segment(plan, tell, on_ray)
    tell(f"\n{'class':<20} share of pixels")
    for name, share in summary.shares.items():
        tell(f"{name:<20} {share:>8.2%}")
    census = summary.census
    tell(f"\nsegmented {census.segmented} of {census.listed} images, {census.failed} failed")
    if summary.processed:
        tell(
            f"{summary.images_per_second:.1f} images/s over {summary.seconds:.0f} s, start included"
        )
    tell(f"masks: {summary.output}/results/*.parquet")
    tell(f"report: {summary.output}/report.html")
    if census.failed:
        tell(
            f"failures: the report has the reasons, as has {summary.output}/errors/*.parquet; "
            "--retry-errors tries them again"
        )
    if census.stale:
        tell(
            f"{census.stale} rows are of images that have changed or that this run did not find; "
            "--prune removes them"
        )
    rate = census.failed / max(1, census.listed)
    if rate > config.max_error_rate:
        print(
            f"error: {rate:.2%} of the images failed, over --max-error-rate "
            f"{config.max_error_rate:.2%}: see {summary.output}/report.html",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    run_job(main)

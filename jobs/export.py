"""Write the masks of a segmentation as PNG files, as COCO RLE, or drawn over their images.

    python jobs/export.py                                       # PNG files, after jobs/segment.py
    python jobs/export.py --results masks --output coco --format rle
    ray job submit --working-dir . -- \\
        python jobs/export.py --results s3://b/masks --output s3://b/overlays --format overlay
"""

import logging
import sys

from segray.export.config import ExportConfig
from segray.export.run import SKIPPED, export
from segray.flags import read_flags
from segray.job import run_job, start_ray

log = logging.getLogger("segray.jobs.export")


def main() -> int:
    config = read_flags(ExportConfig)
    summary = export(config, lambda: start_ray(use_gpu=False))
    there = summary.masks - summary.written - summary.skipped
    log.info(f"\nexported {summary.written} of {summary.masks} masks in {summary.seconds:.0f} s")
    if there:
        log.info(f"{there} were there from an earlier run")
    log.info(f"files: {summary.output}" + ("/annotations.json" * (config.format == "rle")))
    if summary.skipped:
        log.info(f"not exported: {summary.skipped}, see {summary.output}/{SKIPPED}")
    rate = summary.skipped / summary.masks
    if rate > config.max_error_rate:
        print(
            f"error: {rate:.2%} of the masks could not be exported, over --max-error-rate "
            f"{config.max_error_rate:.2%}: see {summary.output}/{SKIPPED}",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    run_job(main)

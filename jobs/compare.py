"""Compare two segmentations of the same images.

    python jobs/compare.py --results masks/old-model masks/new-model --output compared
    ray job submit --working-dir . -- \\
        python jobs/compare.py --results s3://b/monday s3://b/friday --output s3://b/compared
"""

import logging

from segray.comparison.config import CompareConfig
from segray.comparison.run import CHANGES, PAGE, SKIPPED, compare
from segray.flags import read_flags
from segray.job import run_job
from segray.page.markup import format_confidence

log = logging.getLogger("segray.jobs.compare")


def main() -> int:
    result = compare(read_flags(CompareConfig))
    sides = (result.before, result.after)
    log.info(f"\n{'class':<20} {'agreement':>9}   expected IoU before   after")
    for name, agreement in result.agreement.items():
        before, after = (format_confidence(side.expected_iou.get(name)) for side in sides)
        log.info(f"{name:<20} {format_confidence(agreement):>9} {before:>21} {after:>7}")
    before, after = (format_confidence(side.expected_mean_iou) for side in sides)
    log.info(f"{'mean':<20} {'':>9} {before:>21} {after:>7}")
    log.info(
        f"\n{result.changed:.2%} of the pixels of {result.compared} images changed, in "
        f"{result.seconds:.0f} s"
    )
    for alone, side in zip(result.alone, sides, strict=True):
        if alone:
            log.info(f"{alone} images are only in {side.uri}")
    if result.settings:
        log.info(f"settings that differ: {', '.join(result.settings)}")
    log.info(f"page:    {result.output}/{PAGE}")
    log.info(f"numbers: {result.output}/comparison.json, {result.output}/{CHANGES}")
    if result.skipped:
        log.info(f"left out: {len(result.skipped)} damaged masks, see {result.output}/{SKIPPED}")
    return 0


if __name__ == "__main__":
    run_job(main)

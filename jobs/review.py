"""Choose the images of a segmentation that are most worth labelling, with masks to correct.

    python jobs/review.py                                       # after jobs/segment.py
    python jobs/review.py --results s3://b/masks --output review --count 200
    ray job submit --working-dir . -- \\
        python jobs/review.py --results s3://b/masks --output s3://b/review --format cvat
"""

import logging

from segray.flags import read_flags
from segray.job import run_job
from segray.review.config import ReviewConfig
from segray.review.run import review

log = logging.getLogger("segray.jobs.review")


def main() -> int:
    config = read_flags(ReviewConfig)
    made = review(config)
    log.info(
        f"\nchose {len(made.expected)} images of the {config.count} that were wanted, with an "
        f"expected IoU of {min(made.expected):.3f} to {max(made.expected):.3f}"
    )
    for name, count in made.classes.items():
        log.info(f"{name:<20} in {count} images")
    if made.labelled:
        log.info(f"{made.labelled} were left out because they are labelled")
    if made.alike:
        log.info(f"{made.alike} were left out because they are like a chosen one")
    if made.failed:
        log.info(f"{made.failed} were left out because of failures, the first {made.reason}")
    log.info(f"files: {made.output}: {', '.join(made.files)}")
    return 0


if __name__ == "__main__":
    run_job(main)

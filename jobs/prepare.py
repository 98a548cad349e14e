"""Fetch a public data set, and write it as images, masks and a manifest of the pairs.

python jobs/prepare.py oxford-pets --output data/pets
python jobs/prepare.py oxford-pets --output s3://bucket/pets
python jobs/train.py --pairs data/pets/pairs.csv --classes pet=1 background=2 border=3
"""

import logging
import shlex

from segray.data.oxford_pets import CLASSES, OxfordPetsConfig, prepare_oxford_pets
from segray.flags import read_flags
from segray.job import run_job

log = logging.getLogger("segray.jobs.prepare")


def main() -> int:
    config = read_flags(OxfordPetsConfig, command="oxford-pets")
    manifest = prepare_oxford_pets(config)
    log.info("\nto train on it:")
    log.info(
        f"  python jobs/train.py --pairs {shlex.quote(manifest)} --classes {' '.join(CLASSES)}"
    )
    return 0


if __name__ == "__main__":
    run_job(main)

"""Fetch a public data set, and write it as images, masks and a manifest of the pairs.

python jobs/prepare.py oxford-pets --output data/pets
python jobs/prepare.py oxford-pets --output s3://bucket/pets
python jobs/train.py --pairs data/pets/pairs.csv --classes pet=1 background=2 border=3
"""

import shlex

from tyro.extras import subcommand_cli_from_dict

from segray.data.oxford_pets import CLASSES, OxfordPetsConfig, prepare_oxford_pets
from segray.job import run_job, tell


def main() -> int:
    config: OxfordPetsConfig = subcommand_cli_from_dict(
        {"oxford-pets": OxfordPetsConfig}, description=__doc__.partition("\n")[0]
    )
    config.s3.set_environment()
    manifest = prepare_oxford_pets(config, tell)
    tell("\nto train on it:")
    tell(f"  python jobs/train.py --pairs {shlex.quote(manifest)} --classes {' '.join(CLASSES)}")
    return 0


if __name__ == "__main__":
    run_job(main)

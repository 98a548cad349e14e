"""The record of what a training run was started with, in its folder."""

import json
import logging
from typing import Any

from segray.data.labelled import Reading
from segray.data.pairs_csv import DATASET
from segray.errors import InputError
from segray.model.start import StartingModel
from segray.packages import package_versions
from segray.storage.output import Output
from segray.training.config import TrainConfig

log = logging.getLogger(__name__)

#: The list of the files that are not used, with the reasons.
SKIPPED = "skipped.jsonl"

# What the record of a run's start has at least.
_MARKER_KEYS = {"configuration": dict, "data_fingerprint": str, "reading": dict}

# Packages whose versions can affect the result of a run.
_PACKAGES = ("keras", "numpy", "pillow", "tensorflow")

#: Settings that locate the data.
DATA_SETTINGS = (
    "images",
    "masks",
    "image_suffix",
    "mask_suffix",
    "pairs",
    "validation_images",
    "validation_masks",
)

# Settings that may differ when a run resumes: the location of the data (whose content is compared)
# and what affects the speed of the run but, up to rounding, not its result.
_FREE_SETTINGS = (
    *DATA_SETTINGS,
    "output",
    "workers",
    "use_gpu",
    "cache",
    "max_error_rate",
    "max_restarts",
    "mlflow",
    "lock",
    "stall_timeout",
)


def write_marker(
    output: str,
    config: TrainConfig,
    data_fingerprint: str,
    reading: Reading,
    start: StartingModel | None = None,
) -> None:
    """Record what a run is started with.

    Args:
        output: the URI of the folder.
        config: the configuration of the run.
        data_fingerprint: the fingerprint of its data.
        reading: the settings with which the files of its pairs are read.
        start: the model that it goes on from.

    Raises:
        InputError: the file cannot be written.
    """
    _folder(output).write_settings(
        {
            "configuration": config.to_json(),
            "data_fingerprint": data_fingerprint,
            "reading": reading.to_json(),
            "start": None if start is None else {"model": start.uri, "digest": start.digest},
            "versions": package_versions(*_PACKAGES),
        }
    )


def read_marker(output: str) -> dict[str, Any] | None:
    """Read the record that `write_marker` wrote; None if the folder is new.

    Raises:
        InputError: the folder holds something else, or the record is damaged.
    """
    return _folder(output).read_settings(_MARKER_KEYS)


def _folder(output: str) -> Output:
    # A run that stopped because of too many unreadable files has left the list of them.
    return Output(output, "training run", (SKIPPED, DATASET))


def as_recorded(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as they are read from a record, whose lists were tuples."""
    settings: dict[str, Any] = json.loads(json.dumps(config.to_json()))
    return settings


def compare_versions(before: dict[str, str]) -> None:
    """Report the packages whose versions changed since the run started."""
    now = package_versions(*_PACKAGES)
    changes = [
        f"{name} {before[name]}, now {now[name]}"
        for name in now
        if before.get(name, now[name]) != now[name]
    ]
    if changes:
        log.info(
            f"this run was started with {'; '.join(changes)}: its result may differ from that "
            "of an uninterrupted run"
        )


def check_settings(output: str, marker: dict[str, Any], config: TrainConfig) -> None:
    """Refuse to continue a run with other settings."""
    before = marker["configuration"]
    now = as_recorded(config)
    names = (now.keys() | before.keys()) - set(_FREE_SETTINGS)
    # A recipe changes many settings, so it is the difference to report.
    for name in sorted(names, key=lambda name: (name != "recipe", name)):
        flag = f"--{name.replace('_', '-')}"
        if name in now and name in before:
            if before[name] != now[name]:
                _folder(output).refuse(flag, before[name], now[name])
            continue
        known = f"knew no {flag}" if name in now else f"had {flag}, which this one does not know"
        raise InputError(
            f"{output} holds a run of another version of segray, which {known}: give another "
            "--output, or delete that folder"
        )

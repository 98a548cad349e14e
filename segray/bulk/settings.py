"""The settings of an output, its config.json: what all of its rows have in common."""

import json
from typing import Any

from segray.bulk.config import SegmentConfig
from segray.bulk.search import Search
from segray.errors import InputError
from segray.model.bundle import Bundle
from segray.storage.output import Output
from segray.storage.uri import absolute_uri

#: Names of the folders and files that a segmentation writes.
FOLDERS = ("manifest", "results", "regions", "errors", "gallery")
RECORD = "run.json"
REPORT = "report.html"

#: The setting of an output whose earlier rows the last run has deleted, as --overwrite asks for.
OVERWRITING = "overwriting"

# Settings that all rows of an output have in common.
_FIXED = (
    "model",
    "mask_size",
    "value_range",
    "overlap",
    "test_time_flip",
    "regions",
    "min_area",
)
# Of these, the ones that an output from before they existed was made with.
_LATER = {
    "overlap": None,
    "test_time_flip": False,
    "regions": False,
    "min_area": None,
    "columns": 1,
}
# The version of the columns of results: 2 has the expected IoU, 3 the appearance of
# images, and 4 an expected IoU in which a class counts by its share of the image.
_COLUMNS = 4
# Settings that choose the images; a later run may choose others.
_CHOICE = ("images", "manifest", "suffixes", "include", "exclude")


def make_settings(config: SegmentConfig, bundle: Bundle, search: Search) -> dict[str, Any]:
    """The settings of an output: those of its rows, and the images of its last run."""
    return {
        "model": bundle.digest,
        "mask_size": config.mask_size,
        "value_range": bundle.value_range and list(bundle.value_range),
        "overlap": config.overlap if bundle.fit == "tile" else None,
        "test_time_flip": config.test_time_flip,
        "columns": _COLUMNS,
        "regions": config.regions,
        "min_area": config.min_area if config.regions else None,
        "labels": bundle.labels.to_json(),
        # A review needs them.
        "usual_shares": list(bundle.usual_shares),
        # Names in an export are relative to it.
        "images": search.root,
        "manifest": "" if config.manifest is None else absolute_uri(config.manifest),
        "suffixes": list(search.filter.suffixes),
        "include": list(config.include),
        "exclude": list(config.exclude),
    }


def folder_of(output: str) -> Output:
    """Return the output folder of a segmentation."""
    return Output(output, "segmentation", later=(*FOLDERS, RECORD, REPORT))


def read_settings(output: str) -> dict[str, Any] | None:
    """Return the settings that an output has; None if it is new.

    Raises:
        InputError: it holds something that is no segmentation.
    """
    needed = set(_FIXED) - _LATER.keys() | set(_CHOICE)
    settings = folder_of(output).read_settings(dict.fromkeys(needed, object))
    return None if settings is None else {**_LATER, **settings}


def check_settings(
    before: dict[str, Any], settings: dict[str, Any], config: SegmentConfig, output: str
) -> None:
    """Refuse to mix rows of several models or versions, and to prune what was only left out."""
    if before["columns"] != _COLUMNS:
        raise InputError(
            f"{output} was started by another version of segray, whose results have other figures: "
            "give another --output, or --overwrite to delete what is there"
        )
    for name in _FIXED:
        if before[name] != settings[name]:
            shown = "a --model of digest" if name == "model" else f"--{name.replace('_', '-')}"
            folder_of(output).refuse(
                *(shown, before[name], settings[name]),
                "--overwrite to delete what is there",
            )
    for name in _CHOICE if config.prune else ():
        if before[name] != settings[name]:
            raise InputError(
                f"the last run on {output} had --{name} {json.dumps(before[name])}, and this one "
                f"has {json.dumps(settings[name])}: --prune would remove the rows of all that it "
                "leaves out; if that is meant, run once without --prune before"
            )

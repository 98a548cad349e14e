"""The settings of an output, its config.json: what all of its rows have in common."""

import json
from typing import Any

from segray.bulk.config import SegmentConfig
from segray.bulk.search import Search
from segray.errors import InputError
from segray.model.bundle import Bundle
from segray.storage.files import child_names, read_bytes
from segray.storage.lock import LOCK
from segray.storage.uri import absolute_uri, join_uri

#: Names of the folders and files that a segmentation writes.
FOLDERS = ("manifest", "results", "errors", "gallery")
RECORD = "run.json"
REPORT = "report.html"
SETTINGS = "config.json"

# Settings that all rows of an output have in common.
_FIXED = ("model", "mask_size", "value_range")
# Settings that choose the images; a later run may choose others.
_CHOICE = ("images", "manifest", "suffixes", "include", "exclude")


def make_settings(config: SegmentConfig, bundle: Bundle, search: Search) -> dict[str, Any]:
    """The settings of an output: those of its rows, and the images of its last run."""
    return {
        "model": bundle.digest,
        "mask_size": config.mask_size,
        "value_range": bundle.value_range and list(bundle.value_range),
        "labels": bundle.labels.to_json(),
        # Names in an export are relative to it.
        "images": search.root,
        "manifest": "" if config.manifest is None else absolute_uri(config.manifest),
        "suffixes": list(search.filter.suffixes),
        "include": list(config.include),
        "exclude": list(config.exclude),
    }


def read_settings(output: str) -> dict[str, Any] | None:
    """The settings that an output has; None if it is new.

    Raises:
        InputError: it holds something that is no segmentation.
    """
    names = child_names(output)
    settings = None
    own = {LOCK}
    if SETTINGS in names:
        own |= {*FOLDERS, RECORD, REPORT, SETTINGS}
        uri = join_uri(output, SETTINGS)
        try:
            document = json.loads(read_bytes(uri))
            # Outputs from before there were ranges have none.
            document = {"value_range": None, **document}
            settings = {name: document[name] for name in (*_FIXED, *_CHOICE)}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{uri} is no record of a segmentation: give another --output, or empty the folder"
            ) from error
    foreign = [name for name in names if name not in own]
    if foreign:
        raise InputError(
            f"{output} holds something that is no segmentation ({', '.join(foreign[:3])}): "
            "give another --output, or empty the folder"
        )
    return settings


def check_settings(
    before: dict[str, Any], settings: dict[str, Any], config: SegmentConfig, output: str
) -> None:
    """Refuse to mix rows of several models, and to prune what was only left out."""
    for name in _FIXED:
        if before[name] != settings[name]:
            raise InputError(
                f"{output} was made with {name.replace('_', ' ')} {_spell(before[name])}, and this "
                f"run has {_spell(settings[name])}: give another --output, or --overwrite to "
                "delete what is there"
            )
    for name in _CHOICE if config.prune else ():
        if before[name] != settings[name]:
            raise InputError(
                f"the last run on {output} had --{name} {json.dumps(before[name])}, and this one "
                f"has {json.dumps(settings[name])}: --prune would remove the rows of all that it "
                "leaves out; if that is meant, run once without --prune before"
            )


def _spell(setting: Any) -> str:
    """A setting as a flag would have it."""
    if isinstance(setting, list):
        return " ".join(map(str, setting))
    return "none" if setting is None else str(setting)

"""The plan of an export: the masks that there are, and those that are still to be written."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.errors import InputError
from segray.export.coco import read_part_ids
from segray.export.config import ExportConfig
from segray.export.keys import Mirror
from segray.export.rows import Rows, check_keys, scan_rows
from segray.export.versions import claim_files
from segray.results.segmentation import (
    Listed,
    Segmentation,
    open_segmentation,
    read_current_ids,
    read_listed,
)
from segray.storage.ids import Ids, are_in
from segray.storage.output import Output
from segray.storage.uri import absolute_uri

log = logging.getLogger(__name__)

_SUFFIXES = {"png": ".png", "overlay": ".jpg", "rle": ""}

# Fewer masks are exported in the job's own process, which is faster than starting Ray.
_FEW = 500
# The settings of a segmentation that its masks depend on.
_MASK_SETTINGS = ("model", "mask_size", "value_range", "overlap", "test_time_flip")
# The least and the most masks in a piece of work: small enough that all workers get some and that
# progress shows; large enough that a results file, which is read from its beginning, is not read
# too often.
_PIECE = (32, 512)
# The number of workers that is assumed if --workers is not given.
_MANY_WORKERS = 16


@dataclass(frozen=True)
class Preparation:
    """The starting point of an export.

    Attributes:
        config: the flags.
        output: the absolute URI of the output folder.
        segmentation: the segmentation whose masks are exported.
        mirror: the mapping from URIs to keys.
        is_new: True if the output does not contain an export yet.
    """

    config: ExportConfig
    output: str
    segmentation: Segmentation
    mirror: Mirror
    is_new: bool


@dataclass(frozen=True)
class Plan:
    """The work of an export.

    Attributes:
        config: the flags.
        output: the absolute URI of the output folder.
        segmentation: the segmentation whose masks are exported.
        mirror: the mapping from URIs to keys.
        ids: int64 [N], the ids of all masks that belong in the output, sorted.
        missing: the number of masks that are still to be written.
        work: the missing masks in pieces, each a table of one row: ``results`` (the URI of a
            results file) and lists of equal length, ``id`` and, for overlays, the ``size`` and
            ``etag`` of the images.
        workers: the number of Ray workers; 0 for none, None for as many as there are CPUs.
    """

    config: ExportConfig
    output: str
    segmentation: Segmentation
    mirror: Mirror
    ids: Ids
    missing: int
    work: list[pa.Table]
    workers: int | None


def prepare_export(config: ExportConfig) -> Preparation:
    """Inspect the segmentation and the output, without writing anything.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    output = absolute_uri(config.output or f"output/export/{config.format}")
    segmentation = open_segmentation(config.results)
    segmentation.check_output(output, writes_images=config.format != "rle")
    before = _check_output(Output(output, "export"), segmentation, config)
    root = segmentation.images if before is None else before["root"]
    mirror = Mirror.of_output(output, root, _SUFFIXES[config.format])
    return Preparation(config, output, segmentation, mirror, before is None)


def make_plan(preparation: Preparation) -> Plan:
    """Determine what is missing, and prepare the output for it. The caller holds the output's lock.

    Args:
        preparation: the result of `prepare_export`.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    config, output = preparation.config, preparation.output
    segmentation = preparation.segmentation
    current = read_current_ids(segmentation)
    mirror, rows = _read_rows(preparation, current)
    if not len(rows.ids):
        raise InputError(
            f"{segmentation.uri} has no finished row of an image that is there now: run "
            "jobs/segment.py again"
        )
    check_keys(segmentation, rows, mirror)
    if preparation.is_new:
        settings = _settings(segmentation, config)
        Output(output, "export").write_settings(
            {**settings, "root": mirror.root, "classes": segmentation.classes}
        )
    if mirror.suffix:
        done = claim_files(output, rows, mirror)
    else:
        done = are_in(rows.ids, read_part_ids(output))
    missing = int(np.count_nonzero(~done))
    log.info(
        f"{len(rows.ids)} masks" + (f", {len(rows.ids) - missing} are there" * bool(done.any()))
    )
    workers = config.workers
    if workers is None and missing < _FEW:
        workers = 0
    listed = read_listed(segmentation) if config.format == "overlay" and missing else None
    size = _piece_size(missing, workers)
    work = [
        _piece(segmentation.files[file], ids, listed)
        for file, ids in _divide(rows.files[~done], rows.ids[~done], size)
    ]
    return Plan(config, output, segmentation, mirror, np.sort(rows.ids), missing, work, workers)


def _settings(segmentation: Segmentation, config: ExportConfig) -> dict[str, Any]:
    """Return the settings that all files of an output have in common."""
    return {
        "format": config.format,
        "palette": config.palette,
        "results": segmentation.uri,
        **{name: segmentation.settings.get(name) for name in _MASK_SETTINGS},
        "max_side": config.max_side if config.format == "overlay" else None,
    }


def _check_output(
    output: Output, segmentation: Segmentation, config: ExportConfig
) -> dict[str, Any] | None:
    """Return the settings that the output was started with; None if it is new."""
    settings = _settings(segmentation, config)
    before = output.read_settings(dict.fromkeys((*settings, "root"), object))
    if before:
        for name, value in settings.items():
            if before[name] != value:
                output.refuse(name.replace("_", " "), before[name], value)
    return before


def _read_rows(preparation: Preparation, current: Ids) -> tuple[Mirror, Rows]:
    segmentation, mirror = preparation.segmentation, preparation.mirror
    rows, stray = scan_rows(segmentation, current, mirror)
    if stray is not None and preparation.is_new:
        # The images have no folder in common, so their keys are made of their whole URIs.
        mirror = replace(mirror, root=None)
        rows, stray = scan_rows(segmentation, current, mirror)
    if stray is not None:
        raise InputError(
            f"{preparation.output} has keys of images below {mirror.root}, and {stray} does not "
            "lie there: give another --output"
        )
    return mirror, rows


def _piece_size(missing: int, workers: int | None) -> int:
    if workers == 0:
        return max(1, missing)  # in this process, one piece per file
    return min(max(missing // (8 * (workers or _MANY_WORKERS)), _PIECE[0]), _PIECE[1])


def _divide(files: npt.NDArray[np.int64], ids: Ids, size: int) -> Iterator[tuple[int, Ids]]:
    """Divide the missing ids of each file into pieces of `size`; `files` must be ascending."""
    bounds = np.flatnonzero(np.diff(files)) + 1
    for of_file, in_file in zip(np.split(files, bounds), np.split(ids, bounds), strict=True):
        for start in range(0, len(in_file), size):
            yield int(of_file[0]), in_file[start : start + size]


def _piece(results: str, ids: Ids, listed: Listed | None) -> pa.Table:
    sizes, etags = ([], []) if listed is None else listed.find(ids)
    columns = {
        "results": pa.array([results], pa.string()),
        "id": pa.array([ids.tolist()], pa.list_(pa.int64())),
        "size": pa.array([sizes], pa.list_(pa.int64())),
        "etag": pa.array([etags], pa.list_(pa.string())),
    }
    return pa.table(columns)

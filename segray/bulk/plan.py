"""The plan: what can be known and has to be settled before the first image is fetched."""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segray.bulk.config import SegmentConfig
from segray.bulk.outcome import read_ids
from segray.bulk.search import Filter, Found, Ids, Search, is_in
from segray.errors import InputError
from segray.model.bundle import Bundle, open_bundle
from segray.model.predictor import choose_engine, engine_file
from segray.storage.inventory import Part, open_inventory
from segray.storage.listing import Shard, split_listing
from segray.storage.lock import LOCK, hold_lock
from segray.storage.sample import SAMPLE_FOLDER, write_sample
from segray.storage.tables import table_uris
from segray.storage.uri import (
    absolute_uri,
    child_names,
    exists,
    is_local,
    join_uri,
    read_bytes,
    remove,
    write_bytes,
)

#: What a segmentation writes.
FOLDERS = ("manifest", "results", "errors", "gallery")
RECORD = "run.json"
REPORT = "report.html"
_SETTINGS = "config.json"

# Up to so many images are counted before anything starts.
_PEEK = 5000
# Up to so many are done in the time that Ray takes to start.
_FEW = 1000
# In how many parts a bucket is searched, if it is large.
_PARTS = 32


@dataclass(frozen=True)
class Plan:
    """What a run has to do; while there is a plan, no other run is at work on the output.

    Attributes:
        config: of the run.
        engine: what runs the network.
        bundle: the model, with the file that the engine reads.
        output: the absolute URI of the output.
        search: for the images.
        done: the ids that have a row already, ascending, int64.
        missing: how many images have none, None if that takes long to say.
        check: raises InputError if another run has taken the output nevertheless.
    """

    config: SegmentConfig
    engine: Literal["tensorflow", "onnx"]
    bundle: Bundle
    output: str
    search: Search
    done: Ids
    missing: int | None
    check: Callable[[], None]

    @property
    def is_small(self) -> bool:
        """Whether the job's own process is done sooner than Ray has started."""
        return self.missing is not None and self.missing <= _FEW and not self.config.use_gpu


@contextlib.contextmanager
def make_plan(config: SegmentConfig, tell: Callable[[str], None]) -> Iterator[Plan]:
    """Open the model, take the output, see what is in it, and divide the search.

    Args:
        config: the flags of jobs/segment.py.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: something the user gave cannot be used, or another run is at work.
    """
    output = absolute_uri(config.output)
    engine = choose_engine(config.engine, config.use_gpu)
    bundle = open_bundle(config.model, [engine_file(engine)])
    _check_foreign(output)
    run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
    search = _make_search(config, output, run, tell)
    with hold_lock(output, tell) as check:
        _claim(output, config, bundle, search.root, tell)
        done = _find_done(output, config, tell)
        missing = _count_missing(search, done, tell)
        if missing is None and search.root and not config.limit:
            # The first images by URI are found by one search only.
            tell(f"found more than {_PEEK} images: searching on while they are segmented")
            search = replace(search, parts=tuple(split_listing(search.root, _PARTS)))
        yield Plan(config, engine, bundle, output, search, done, missing, check)


def _make_search(
    config: SegmentConfig, output: str, run: str, tell: Callable[[str], None]
) -> Search:
    filter = Filter(
        tuple(suffix.lower() for suffix in config.suffixes if suffix),
        config.include,
        config.exclude,
    )
    root = ""
    parts: list[Shard] | list[Part]
    if config.manifest is not None:
        parts = open_inventory(config.manifest)
        if config.suffixes == SegmentConfig.suffixes and not any(part.of_s3 for part in parts):
            # Whoever names images one by one means them, however they are called.
            filter = Filter((), config.include, config.exclude)
    else:
        root = _images_uri(config, tell)
        parts = [Shard(root)]
    return Search(tuple(parts), root, filter, output, run, config.limit)


def _images_uri(config: SegmentConfig, tell: Callable[[str], None]) -> str:
    """What to segment: the sample images where none were named."""
    if config.images is not None:
        return absolute_uri(config.images)
    write_sample(SAMPLE_FOLDER, tell)
    return join_uri(absolute_uri(SAMPLE_FOLDER), "new")


def _check_foreign(output: str) -> None:
    """Refuse an output that is not a segmentation."""
    own = {*FOLDERS, RECORD, REPORT, _SETTINGS, LOCK}
    foreign = [name for name in child_names(output) if name not in own]
    if foreign:
        raise InputError(
            f"{output} holds something that is no segmentation ({', '.join(foreign[:3])}): "
            "give another --output, or empty the folder"
        )


def _claim(
    output: str, config: SegmentConfig, bundle: Bundle, root: str, tell: Callable[[str], None]
) -> None:
    """Refuse an output with other settings, or begin it anew, and note this run's settings."""
    uri = join_uri(output, _SETTINGS)
    settings: dict[str, Any] = {"model": bundle.digest, "mask_size": config.mask_size}
    if exists(uri):
        before = json.loads(read_bytes(uri))
        for name, value in settings.items():
            if before.get(name) != value and not config.overwrite:
                raise InputError(
                    f"{output} was made with {name.replace('_', ' ')} {before.get(name)}, and this "
                    f"run has {value}: give another --output, or --overwrite to delete what is "
                    "there"
                )
    if config.overwrite:
        _empty(output, tell)
    elif exists(join_uri(output, RECORD)):
        # Written last: an output without it is unfinished.
        remove(join_uri(output, RECORD))
    # The root, because names in an export are relative to it.
    settings |= {"root": root, "labels": bundle.labels.to_json()}
    write_bytes(uri, json.dumps(settings, indent=2).encode())


def _empty(output: str, tell: Callable[[str], None]) -> None:
    files = [uri for folder in FOLDERS for uri in table_uris(join_uri(output, folder))]
    names = [RECORD, REPORT, _SETTINGS]
    files += [join_uri(output, name) for name in child_names(output) if name in names]
    for uri in files:
        remove(uri)
    if files:
        tell(f"deleted {len(files)} files of earlier runs")


def _find_done(output: str, config: SegmentConfig, tell: Callable[[str], None]) -> Ids:
    """The ids that have a row; what a killed run has left half-done is removed."""
    for folder in FOLDERS:
        # What is written on a disk has another name until it is whole.
        if is_local(output):
            for half in Path(output, folder).glob(".partial-*"):
                half.unlink(missing_ok=True)
    if config.retry_errors:
        for uri in table_uris(join_uri(output, "errors")):
            remove(uri)
    found = [read_ids(join_uri(output, folder), tell) for folder in ("results", "errors")]
    return np.unique(np.concatenate(found))


def _count_missing(search: Search, done: Ids, tell: Callable[[str], None]) -> int | None:
    found = Found()
    ids: list[int] = []
    for part in range(len(search.parts)):
        for entries in search.images(part, found):
            ids += [entry.id for entry in entries]
            if len(ids) > _PEEK:
                return None
    if not ids:
        where = search.root or "the inventory"
        raise InputError(f"no image found in {where}: {describe_left_out(found) or 'it is empty'}")
    unique = np.unique(np.array(ids, dtype=np.int64))
    missing = int(np.count_nonzero(~is_in(unique, done)))
    left_out = describe_left_out(found)
    tell(f"found {len(ids)} images" + (f"; left out: {left_out}" if left_out else ""))
    if missing < len(unique):
        tell(f"{len(unique) - missing} of them have a row from an earlier run")
    return missing


def describe_left_out(found: Found) -> str:
    """What was passed over, in words; empty if nothing was."""
    parts = {
        "with another suffix": found.other,
        "by --include or --exclude": found.excluded,
        "hidden": found.hidden,
        "that stand for folders": found.placeholders,
        "that cannot be read": found.unreadable,
    }
    return ", ".join(f"{count} {name}" for name, count in parts.items() if count)

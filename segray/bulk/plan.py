"""The plan of a segmentation: all that is checked and found out before an image is fetched."""

import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from segray.bulk.config import SegmentConfig
from segray.bulk.done import read_done
from segray.bulk.manifest import Found
from segray.bulk.search import Filter, Search
from segray.bulk.settings import (
    FOLDERS,
    OVERWRITING,
    RECORD,
    REPORT,
    check_settings,
    folder_of,
    make_settings,
    read_settings,
)
from segray.data.pairs import find_masks
from segray.data.sample import SAMPLE_FOLDER, write_sample
from segray.data.values import check_values
from segray.errors import InputError
from segray.model.bundle import Bundle, open_bundle
from segray.model.predictor import (
    Predictor,
    choose_engine,
    engine_file,
    load_gpu_predictor,
    load_predictor,
)
from segray.model.reference import REFERENCE, Counts, read_reference
from segray.storage.files import child_names, remove, remove_partial
from segray.storage.ids import Ids, are_in
from segray.storage.inventory import Part, open_inventory
from segray.storage.listing import Shard, split_listing
from segray.storage.lock import hold_lock
from segray.storage.requests import requests_sent
from segray.storage.tables import table_uris
from segray.storage.uri import absolute_uri, join_uri

log = logging.getLogger(__name__)

# Images that are counted before anything starts; of a larger bucket the search goes on meanwhile.
_COUNTED_FIRST = 5000
# Images that are done in the time that Ray takes to start.
_SMALL = 1000
# Parts in which a large bucket is searched.
_PARTS = 32


@dataclass
class Plan:
    """The work of a run; while there is a plan, the output is locked against other runs.

    With --dry-run it is not, and nothing has been written or deleted.

    Attributes:
        config: the flags of the run.
        engine: the engine that runs the network.
        bundle: the model, with the file that the engine reads and the value range of this run.
        reference: the histograms of the images that it was trained on, see
            `segray.model.reference`; None if the bundle has none.
        output: the absolute URI of the output.
        search: the search for the images.
        done: the ids that have a row already, ascending, int64; empty once they are forgotten.
        missing: number of images that have none; None if that takes long to find out.
        settings: the content of the output's config.json.
        check: raises InputError if another run has taken the output nevertheless.
        sent: the requests that this process had sent before, see `segray.storage.requests`.
    """

    config: SegmentConfig
    engine: Literal["tensorflow", "onnx"]
    bundle: Bundle
    reference: dict[str, Counts] | None
    output: str
    search: Search
    done: Ids
    missing: int | None
    settings: dict[str, Any]
    check: Callable[[], None]
    sent: Counter[str]

    @property
    def is_small(self) -> bool:
        """True if the job's own process is done sooner than Ray has started."""
        return self.missing is not None and self.missing <= _SMALL and not self.config.use_gpu

    @property
    def batch_size(self) -> int:
        """Images per batch: --batch-size, or fewer if their logits would take too much memory."""
        return self.bundle.limit_batch(self.config.batch_size)

    def claim(self) -> None:
        """Write the run's settings, and first delete what this run does anew.

        With --overwrite that is all of earlier runs, with --retry-errors the rows of failed images.
        An interrupted run with --overwrite leaves a mark in the settings, by which the same command
        goes on with it.

        Call it when all is ready, so that a run that cannot start deletes nothing.
        """
        overwrite, folder = self.config.overwrite, folder_of(self.output)
        before = read_settings(self.output) if overwrite else None
        if before and before.pop(OVERWRITING, False):
            # That was another run, so that this one is not taken for it before all is deleted.
            folder.write_settings(before)
        # The record is written last: an output without it is unfinished.
        names = (RECORD, REPORT) if overwrite else (RECORD,)
        files = [join_uri(self.output, name) for name in child_names(self.output) if name in names]
        for name in FOLDERS if overwrite else ("errors",) * self.config.retry_errors:
            files += table_uris(join_uri(self.output, name))
        for uri in files:
            remove(uri)
        if overwrite and files:
            log.info(f"deleted {len(files)} files of earlier runs")
        folder.write_settings(self.settings)

    def predictor_loader(self, threads: int) -> Callable[[], Predictor]:
        """A function that makes the network ready, on the GPU or on so many cores of a process."""
        flip = self.config.test_time_flip
        if self.config.use_gpu:
            return partial(load_gpu_predictor, self.bundle, self.engine, self.batch_size, flip)
        return partial(load_predictor, self.bundle, self.engine, threads, flip)

    def forget_done(self) -> None:
        """Free the ids when the search is over: they are eight bytes for each image."""
        self.done = np.empty(0, dtype=np.int64)


@contextlib.contextmanager
def make_plan(config: SegmentConfig) -> Iterator[Plan]:
    """Open the model, lock the output, read what is done in it, and divide the search.

    Args:
        config: the flags of jobs/segment.py.

    Raises:
        InputError: something the user gave cannot be used, or another run is at work.
    """
    sent = requests_sent()
    output = absolute_uri(config.output)
    engine = choose_engine(config.engine)
    bundle = open_bundle(config.model, [engine_file(engine)])
    if config.value_range is not None:
        bundle = replace(bundle, value_range=config.value_range)
    bundle.check_overlap(config.overlap)
    reference = read_reference(bundle.uri, bundle.digest, bundle.labels)
    if reference is None and config.max_drift is not None:
        raise InputError(
            f"the model in {bundle.uri} has no {REFERENCE}, which training writes since there is "
            "drift: leave out --max-drift, copy the whole bundle again, or train anew"
        )
    read_settings(output)  # so that not even a lock is left in a folder of something else
    run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
    search = _make_search(config, output, run)
    settings = make_settings(config, bundle, search)
    with _hold_lock(output, config) as check:
        before = read_settings(output)
        if config.overwrite:
            settings[OVERWRITING] = True
            if before and _is_interrupted(output, before, settings):
                log.info("continuing the interrupted run with --overwrite")
                config = replace(config, overwrite=False)
        elif before:
            check_settings(before, settings, config, output)
        ids, found, first = _find_first(search)
        if ids is not None and not len(ids) and not (before and config.prune):
            where = search.root or config.manifest
            left_out = describe_left_out(found)
            raise InputError(f"no image found in {where}: {left_out or 'it is empty'}")
        done = _find_done(output, config)
        missing = None if ids is None else _count_missing(ids, found, done)
        todo = _uris_without_row(first, done)
        check_values(todo, bundle.value_range)
        _report_masks(todo)
        if missing is None and search.root and not config.limit:
            # The first images by URI are found by one search only.
            log.info(
                f"found more than {_COUNTED_FIRST} images: searching on while they are segmented"
            )
            search = replace(search, parts=tuple(split_listing(search.root, _PARTS)))
        plan = Plan(
            *(config, engine, bundle, reference, output, search, done, missing, settings),
            *(check, sent),
        )
        del done  # the plan forgets them when they are not needed any more
        yield plan


def _is_interrupted(output: str, before: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Return True if the same run with --overwrite has begun on an output and not ended."""
    same = all(before.get(name) == value for name, value in settings.items())
    return same and RECORD not in child_names(output)


def _hold_lock(
    output: str, config: SegmentConfig
) -> contextlib.AbstractContextManager[Callable[[], None]]:
    if config.dry_run:
        return contextlib.nullcontext(lambda: None)
    return hold_lock(output, config.lock)


def _make_search(config: SegmentConfig, output: str, run: str) -> Search:
    filter = Filter(
        tuple(suffix.lower() for suffix in config.suffixes if suffix),
        config.include,
        config.exclude,
    )
    root = folder = ""
    parts: list[Shard | Part | tuple[Part, ...]]
    if config.manifest is not None:
        files = open_inventory(config.manifest)
        folder = files[0].uri.rpartition("/")[0]
        if config.suffixes == SegmentConfig.suffixes and not any(part.of_s3 for part in files):
            # Whoever names images one by one means them, however they are called.
            filter = Filter((), config.include, config.exclude)
        # The first images of all files are found by one search only.
        parts = [tuple(files)] if config.limit else [*files]
    else:
        root = _images_uri(config)
        parts = [Shard(root)]
    return Search(tuple(parts), root, filter, output, run, config.limit, folder)


def _images_uri(config: SegmentConfig) -> str:
    """The URI of the images; without --images, the sample images are written first."""
    if config.images is not None:
        return absolute_uri(config.images)
    if config.model != SegmentConfig.model:
        raise InputError("--images is missing: give the folder or the bucket to segment")
    write_sample(SAMPLE_FOLDER)
    return join_uri(absolute_uri(SAMPLE_FOLDER), "new")


def _find_done(output: str, config: SegmentConfig) -> Ids:
    """The ids that have a row, after half-written files of a killed run are removed."""
    if not config.dry_run:
        for folder in FOLDERS:
            remove_partial(join_uri(output, folder))
    if config.overwrite:
        return np.empty(0, dtype=np.int64)
    folders = ("results",) if config.retry_errors else ("results", "errors")
    return read_done(output, folders, delete=not config.dry_run)


def _find_first(search: Search) -> tuple[Ids | None, Found, list[tuple[int, str]]]:
    """The ids of the images, None if there are many; counts; and id and URI of the first ones."""
    found = Found()
    images: list[tuple[int, str]] = []
    for part in range(len(search.parts)):
        for entries in search.images(part, found):
            images += [(entry.id, entry.uri) for entry in entries]
            if len(images) > _COUNTED_FIRST:
                return None, found, images
    return np.array([id for id, _ in images], dtype=np.int64), found, images


def _uris_without_row(images: list[tuple[int, str]], done: Ids) -> list[str]:
    """The URIs of the images that have no row."""
    have = are_in(np.array([id for id, _ in images], dtype=np.int64), done)
    return [uri for (_, uri), has in zip(images, have, strict=True) if not has]


def _report_masks(uris: Sequence[str]) -> None:
    masks, pattern = find_masks(uris)
    if masks:
        log.warning(
            f"{len(masks)} files are named like the masks of other images, such as {masks[0]}: "
            f"--exclude '{pattern}' leaves them out"
        )


def _count_missing(ids: Ids, found: Found, done: Ids) -> int:
    unique = np.unique(ids)
    missing = int(np.count_nonzero(~are_in(unique, done)))
    left_out = describe_left_out(found)
    log.info(f"found {len(ids)} images" + (f"; left out: {left_out}" if left_out else ""))
    if missing < len(unique):
        log.info(f"{len(unique) - missing} of them have a row from an earlier run")
    return missing


def describe_left_out(found: Found) -> str:
    """The passed-over files in words; empty if there are none."""
    parts = {
        "with another suffix": found.other,
        "by --include or --exclude, whose patterns match keys without the bucket": found.excluded,
        "hidden": found.hidden,
        "that stand for folders": found.placeholders,
        "that are no files, or have names that are not UTF-8": found.unreadable,
        "that could not be looked at": found.unseen,
    }
    return ", ".join(f"{count} {name}" for name, count in parts.items() if count)

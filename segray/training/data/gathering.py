"""Gathering: decode the data of a run, after settling how its files are to be read."""

import contextlib
import logging
import time
from dataclasses import replace

from segray.data.labelled import Reading
from segray.data.sample import SAMPLE_FOLDER
from segray.data.values import read_reaches, spread
from segray.errors import InputError
from segray.nodes import SharedFiles, await_node, reporting_waits, worker_nodes, works_alone
from segray.pixels.decoding import DecodeError, count_pixels
from segray.pixels.orientation import settle_orientation
from segray.pixels.wide import ValueRange, choose_range
from segray.progress import ProgressLine
from segray.storage.files import read_bytes
from segray.storage.lock import LOCK
from segray.storage.uri import absolute_uri, join_uri
from segray.training.control.room import checking_gpu
from segray.training.data.dataset import DataSet
from segray.training.data.examples import decode_pairs
from segray.training.plan import Preparation

log = logging.getLogger(__name__)

# The share of a node's object store that decoded examples may take.
_STORE_SHARE = 0.5
# The number of images sampled to find the range of pixel values.
_SAMPLE = 256
# The number of images whose sizes stand for those of all.
_SIZES = 16


def gather_data(preparation: Preparation) -> DataSet:
    """Decode the training set and the validation set.

    Nothing is written to the output, because the way in which files are read may only be settled
    here.

    Args:
        preparation: the preparation of the run.

    Raises:
        InputError: the files are not visible on a node, or the orientation of the masks cannot be
            inferred.
    """
    config, shared = preparation.config, _find_shared(preparation)
    await_node("GPU" if config.workers_use_gpu else "CPU", "the training")
    shared.check_nodes()
    reading = preparation.reading
    if reading is None:
        reading = Reading(config.mask_orientation, _find_range(preparation))
    keep = _fits(preparation)
    data = _decode(preparation, reading, keep, shared)
    # A run that resumes keeps the settings with which it started.
    if preparation.reading is None and config.mask_orientation == "auto":
        settled = replace(reading, mask_orientation=settle_orientation(data.says))
        if settled.mask_orientation == "upright":
            del data  # to free memory for the next ones
            log.info("masks were drawn on upright images, as their shapes show: decoding again")
            data = _decode(preparation, settled, keep, shared)
        else:
            data = data.with_reading(settled)
    if data.turned:
        log.info(f"turned {data.turned} mask(s) with their photographs, by their EXIF orientation")
    return data


def _find_range(preparation: Preparation) -> ValueRange | None:
    """Return the range of pixel values of wide images: the given one, or that of a sample."""
    asked = preparation.config.value_range
    if asked is None and preparation.start is not None:
        # The model knows images by this range.
        asked = preparation.start.value_range
    if asked is not None:
        return asked
    reaches = sorted(read_reaches(spread([pair.image for pair in preparation.train], _SAMPLE)))
    value_range = choose_range(reaches)
    if value_range is not None:
        usual = reaches[len(reaches) // 2]
        log.info(
            f"images are wider than 8 bits: nearly all values are at most {reaches[-1]}, and in "
            f"half of the images {usual}; {value_range[0]} to {value_range[1]} is taken for black "
            "to white (--value-range)"
        )
    return value_range


def _decode(
    preparation: Preparation,
    reading: Reading,
    keep: bool,
    shared: SharedFiles,
) -> DataSet:
    config = preparation.config
    total = len(preparation.train) + len(preparation.validation)
    progress = ProgressLine("decoding", "pairs", total)
    with checking_gpu(config) as check_gpu:
        started = time.monotonic()

        def add(pairs: int) -> None:
            check_gpu()
            if pairs:
                progress.add(pairs)

        with reporting_waits("decoding", {"CPU": 1.0}, lambda: not progress.done):
            train, validation = (
                decode_pairs(pairs, config.labels, frame, keep, add, shared, reading)
                for pairs, frame in (
                    (preparation.train, config.training_frame),
                    (preparation.validation, config.frame),
                )
            )
    log.info(f"decoded {total} pairs in {time.monotonic() - started:.0f} s")
    return DataSet(train, validation)


def _find_shared(preparation: Preparation) -> SharedFiles:
    """Return the local files that show whether the data and the output are visible on a node."""
    config, output = preparation.config, preparation.output
    if config.images == join_uri(absolute_uri(SAMPLE_FOLDER), "images") and not works_alone():
        raise InputError(
            "the sample data set is drawn on the disk of the machine that runs the job, which the "
            "nodes of a cluster do not share: give --images, --masks and --output in S3"
        )
    first = next(iter(preparation.train + preparation.validation), None)
    return SharedFiles.of(
        {
            "--pairs" if config.pairs else "--images": first.image if first else None,
            "--masks": first.mask if first else None,
            "--output": join_uri(output, LOCK),
        }
    )


def _fits(preparation: Preparation) -> bool:
    """Return True if the decoded examples are to be cached in Ray's object store."""
    config = preparation.config
    if config.fit == "tile":
        pixels = _estimate_pixels(preparation)
    else:
        pixels = len(preparation.train) * config.training_frame.pixels
        pixels += len(preparation.validation) * config.frame.pixels
    needed = pixels * (3 + 1)
    # Each node that trains maps all examples, so they must fit into the smallest store.
    kind = "GPU" if config.use_gpu else "CPU"
    nodes = [node for node in worker_nodes() if node.total.get(kind)] or worker_nodes()
    sizes = [node.total.get("object_store_memory", 0.0) for node in nodes]
    room = _STORE_SHARE * min(sizes, default=0.0)
    keep = needed <= room if config.cache == "auto" else config.cache == "memory"
    again = "for each crop" if config.fit == "tile" else "in each epoch"
    where = "are kept in memory" if keep else f"are decoded {again}"
    log.info(
        f"the decoded images take {needed / 1e9:.2f} GB, with room for {room / 1e9:.2f} GB: "
        f"they {where}"
    )
    return keep


def _estimate_pixels(preparation: Preparation) -> int:
    """Return the approximate number of pixels of all images, scaled, from those of a sample."""
    pairs = preparation.train + preparation.validation
    counts = []
    for uri in spread([pair.image for pair in pairs], _SIZES):
        # Unreadable files are reported when they are decoded.
        with contextlib.suppress(InputError, DecodeError):
            counts.append(count_pixels(read_bytes(uri)))
    mean = sum(counts) / max(1, len(counts))
    return round(len(pairs) * mean * preparation.config.scale**2)

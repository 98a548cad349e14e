"""A review: from the rows of a segmentation to images with masks to correct."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.data.pairs_table import follow_link, read_manifest
from segray.errors import InputError
from segray.pixels.decoding import DecodeError
from segray.pixels.labels import Labels
from segray.pixels.limits import Memory
from segray.pixels.masks import decode_class_ids
from segray.pixels.thumbnails import scale_mask
from segray.progress import ProgressLine
from segray.results.segmentation import (
    Segmentation,
    open_segmentation,
    read_current,
    read_listed,
    read_rows,
)
from segray.review.chosen import Chosen
from segray.review.config import Format, ReviewConfig
from segray.review.cvat import Cvat
from segray.review.label_studio import LabelStudio
from segray.review.likeness import Gathering, describe_image
from segray.review.pairs import Pairs
from segray.review.ranking import Ranked, Ranking
from segray.storage.failures import FetchError
from segray.storage.files import child_names
from segray.storage.lock import LOCK, hold_lock
from segray.storage.objects import fetched
from segray.storage.parallel import map_ahead
from segray.storage.uri import absolute_uri

# Images that are fetched at once, and that are looked at together.
_REQUESTS, _LOOKED_AT = 16, 64
# Results files that are read at once; each may hold 64 MB of masks.
_READERS = 4
# The files of images that are fetched at once take so much memory.
_FETCHED_BYTES = 1 << 27
# Kinds of characters that one of the formats cannot hold: control characters, line breaks, and what
# stands for bytes that are no text.
_UNWRITABLE = {"Cc", "Zl", "Zp", "Cs"}
# Images in a row that cannot be fetched, after which the store is given up.
_FAILURES = 32

_FORMATS: dict[Format, Callable[[str, Labels], Pairs | Cvat | LabelStudio]] = {
    "pairs": Pairs,
    "cvat": Cvat,
    "label-studio": LabelStudio,
}


@dataclass
class Review:
    """What a review has chosen.

    Attributes:
        output: the absolute URI of the output folder.
        files: the names of what was written there.
        expected: the expected IoU of each chosen image.
        classes: the number of images with each class, by its name.
        labelled: the number of images that were left out because they have been labelled.
        alike: the number of images that were left out because they are like a chosen one.
        failed: the number of images that were left out because they, or their masks, are damaged,
            gone, or have changed.
        reason: the reason of the first of these.
    """

    output: str
    classes: dict[str, int]
    files: list[str] = field(default_factory=list)
    expected: list[float] = field(default_factory=list)
    labelled: int = 0
    alike: int = 0
    failed: int = 0
    reason: str = ""

    def note(self, chosen: Chosen) -> None:
        """Count a chosen image."""
        self.expected.append(chosen.expected_iou)
        names = list(self.classes)
        for class_id in np.unique(chosen.mask).tolist():
            self.classes[names[class_id]] += 1


def review(config: ReviewConfig) -> Review:
    """Choose images, and write their masks.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    segmentation = open_segmentation(config.results)
    output = absolute_uri(config.output)
    segmentation.check_output(output, writes_images=config.format == "pairs")
    _check_empty(output)  # so that not even a lock is left in a folder of something else
    if segmentation.usual_shares is None:
        raise InputError(
            f"{segmentation.uri} is of an earlier version of segray, which knew less of how good "
            "its masks are: segment the images again, with another --output or --overwrite"
        )
    ranking = Ranking(segmentation.labels, segmentation.usual_shares, config.count)
    labelled = _find_labelled(config.labelled)
    with hold_lock(output, config.lock) as check_lock:
        _check_empty(output)
        made = Review(output, dict.fromkeys(segmentation.classes, 0))
        ranked = _rank(segmentation, ranking, labelled, made)
        writer = _FORMATS[config.format](output, segmentation.labels)
        for chosen in _choose(segmentation, ranked, made, config.count):
            check_lock()
            writer.add(chosen)
            made.note(chosen)
        if not made.expected:
            raise InputError(
                f"no image of {segmentation.uri} can be reviewed: "
                f"{made.reason or 'it has none that is not labelled'}"
            )
        check_lock()
        made.files = writer.finish()
    return made


def _check_empty(output: str) -> None:
    """Refuse an output with files."""
    if set(child_names(output)) - {LOCK}:
        raise InputError(
            f"{output} is not empty, and may hold masks that were corrected: give another --output"
        )


def _find_labelled(tables: Sequence[str]) -> frozenset[str]:
    """Return the files of all images that tables of pairs list."""
    splits = read_manifest(*tables) if tables else {}
    return frozenset(follow_link(pair.image) for pairs in splits.values() for pair in pairs)


def _rank(
    segmentation: Segmentation, ranking: Ranking, labelled: frozenset[str], made: Review
) -> Ranked:
    """Read what the model expects of its masks, and rank the images that are not labelled."""
    columns = [*ranking.columns, *(["uri"] if labelled else [])]
    for file, table in read_current(segmentation, columns):
        if labelled:
            new = [follow_link(uri) not in labelled for uri in table["uri"].to_pylist()]
            made.labelled += len(new) - sum(new)
            table = table.filter(pa.array(new, pa.bool_()))
        ranking.add(file, table)
    return ranking.finish()


def _choose(
    segmentation: Segmentation, ranked: Ranked, made: Review, count: int
) -> Iterator[Chosen]:
    """Look at images in the order of the ranking until enough are chosen, and yield those."""
    wanted = min(count, len(ranked))
    progress = ProgressLine("choosing", "images", wanted)
    gathering = Gathering(wanted)
    listed = read_listed(segmentation, np.sort(ranked.ids))
    memory = Memory(_FETCHED_BYTES)

    def look(row: dict[str, Any]) -> tuple[Chosen, npt.NDArray[np.float32]] | Exception:
        uri, width, height = row["uri"], row["width"], row["height"]
        try:
            if any(unicodedata.category(character) in _UNWRITABLE for character in uri):
                raise ValueError("its name has a control character or a line break")
            mask = decode_class_ids(row["mask"], len(segmentation.labels))
            [size], [etag] = listed.find(np.array([row["id"]]))
            with fetched(memory, uri, size, etag) as content:
                described = describe_image(content, width, height, segmentation.value_range)
        except (ValueError, FetchError, DecodeError) as error:
            return error
        if mask.shape != (height, width):
            mask = scale_mask(mask, width, height)
        return Chosen(row["id"], uri, mask, row["expected_iou"]), described

    unfetched = 0
    for start in range(0, len(ranked), _LOOKED_AT):
        rows = _read(segmentation, ranked, slice(start, start + _LOOKED_AT))
        for row, seen in map_ahead(lambda row: (row, look(row)), rows, _REQUESTS):
            if len(gathering) == wanted:
                return
            if isinstance(seen, Exception):
                made.failed += 1
                made.reason = made.reason or f"{row['uri']!r}: {seen}"
                progress.add(0, failed=1)
                unfetched = unfetched + 1 if isinstance(seen, FetchError) else 0
                if unfetched == _FAILURES:
                    raise InputError(f"the images cannot be fetched, the first {made.reason}")
                continue
            unfetched = 0
            chosen, described = seen
            if gathering.admit(described):
                progress.add(1)
                yield chosen
            else:
                made.alike += 1


def _read(segmentation: Segmentation, ranked: Ranked, images: slice) -> Iterator[dict[str, Any]]:
    """Yield the rows of some images, in their order, with the expected IoU."""
    ids, files = ranked.ids[images], ranked.files[images]

    def read(file: int) -> list[dict[str, Any]]:
        return list(read_rows(segmentation.files[file], ids[files == file].tolist()))

    tables = map_ahead(read, np.unique(files).tolist(), _READERS)
    found = {row["id"]: row for rows in tables for row in rows}
    for id, expected in zip(ids.tolist(), ranked.expected[images].tolist(), strict=True):
        yield {**found[id], "expected_iou": expected}

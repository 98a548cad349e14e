"""The work of an export: take a piece of work, write its files, and return an account of it.

Failures are data: a mask that cannot be exported is listed in the account with the reason. Only a
failure to write to the output is a problem of the whole run.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.errors import InputError
from segray.export.coco import annotate, write_parts
from segray.export.config import Format
from segray.export.keys import Mirror
from segray.export.overlay import draw_overlay
from segray.pixels.decoding import DecodeError
from segray.pixels.limits import Memory
from segray.pixels.masks import decode_class_ids, encode_grey
from segray.pixels.thumbnails import scale_mask
from segray.pixels.wide import ValueRange
from segray.results.segmentation import read_rows
from segray.storage.failures import FetchError
from segray.storage.files import write_bytes
from segray.storage.objects import fetched
from segray.storage.parallel import map_ahead
from segray.storage.uri import join_uri

# Concurrent requests of each kind. A request waits much longer than it computes.
_REQUESTS = 16
# The number of masks, written or skipped, after which an account is yielded.
_ACCOUNT_ROWS = 64
# Images in a row that cannot be fetched, after which the store is given up; and the kinds of
# failures that say nothing about the store.
_FAILURES = 32
_OF_THE_IMAGE = {"NotFound", "NotAFile", "Forbidden", "Changed", "Archived", "TooLarge"}
# The files of images that are fetched at once, and of the one that is drawn, take so much memory.
_FETCHED_BYTES = 1 << 27
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: The account of some work: the number of exported masks, the other images with the reasons, the
#: key of one file that was written, and the problem that stopped the work. A problem is data as
#: well, because Ray would hide the cause of an exception.
ACCOUNT_SCHEMA = pa.schema(
    [
        ("written", pa.int64()),
        ("image", pa.list_(pa.string())),
        ("reason", pa.list_(pa.string())),
        ("sample", pa.string()),
        ("problem", pa.string()),
    ]
)

_Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """The work to do for every mask. It is small, because it is sent to other processes.

    Attributes:
        format: the format of the files.
        palette: True if PNG files keep their colours.
        output: the absolute URI of the output folder.
        mirror: the mapping from URIs to keys.
        classes: the number of classes.
        max_side: the maximum longer side of overlays, in pixels.
        value_range: see `segray.results.segmentation.Segmentation`.
    """

    format: Format
    palette: bool
    output: str
    mirror: Mirror
    classes: int
    max_side: int
    value_range: ValueRange | None


class _Account:
    """The work done since the last account was yielded.

    Attributes:
        written: the number of masks that were written.
        skipped: the images whose masks were not, with the reasons.
        sample: the key of a file that was written.
        unfetched: the number of images in a row, up to the last one, that the store did not give.
    """

    def __init__(self) -> None:
        self.written = self.unfetched = 0
        self.skipped: list[tuple[str, str]] = []
        self.sample: str | None = None

    def hand_in(self, problem: str | None = None) -> pa.Table:
        row = {
            "written": self.written,
            "image": [image for image, _ in self.skipped],
            "reason": [reason for _, reason in self.skipped],
            "sample": self.sample,
            "problem": problem,
        }
        self.written, self.skipped = 0, []
        return pa.Table.from_pylist([row], ACCOUNT_SCHEMA)


def do_work(work: pa.Table, task: Task) -> Iterator[pa.Table]:
    """Export the masks of some pieces.

    Args:
        work: the columns ``results, id, size, etag``, see `segray.export.plan.Plan`.
        task: the work to do.

    Yields:
        From time to time, a table of one row of `ACCOUNT_SCHEMA`.
    """
    account = _Account()
    try:
        for piece in work.to_pylist():
            for _ in _do_piece(piece, task, account):
                if account.written + len(account.skipped) >= _ACCOUNT_ROWS:
                    yield account.hand_in()
    except InputError as error:
        yield account.hand_in(str(error))
    else:
        yield account.hand_in()


def _do_piece(piece: _Row, task: Task, account: _Account) -> Iterator[None]:
    """Export the masks of a piece, and yield when one has been written, or an overlay skipped."""
    rows = _whole(_read(piece, task), account)
    if task.format == "rle":
        for written in write_parts(task.output, _describe(rows, task, account)):
            account.written += written
            yield
        return
    files: Iterable[tuple[str, bytes] | None]
    if task.format == "overlay":
        files = _draw(rows, task, account)
    elif task.palette:
        files = ((row["key"], row["mask"]) for row in rows)
    else:
        files = ((row["key"], encode_grey(mask)) for row, mask in _decode(rows, task, account))
    for key in map_ahead(lambda file: file and _write(task.output, *file), files, _REQUESTS):
        if key:
            account.written += 1
            account.sample = key
        yield


def _read(piece: _Row, task: Task) -> Iterator[_Row]:
    listed = dict(zip(piece["id"], zip(piece["size"], piece["etag"], strict=True), strict=False))
    for row in read_rows(piece["results"], piece["id"]):
        size, etag = listed.get(row["id"], (None, None))
        yield {**row, "key": task.mirror.key(row["uri"]), "size": size, "etag": etag}


def _whole(rows: Iterable[_Row], account: _Account) -> Iterator[_Row]:
    for row in rows:
        if row["mask"].startswith(_PNG_SIGNATURE):
            yield row
        else:
            account.skipped.append((row["uri"], "its row has no mask"))


def _write(output: str, key: str, content: bytes) -> str:
    write_bytes(join_uri(output, key), content)
    return key


def _draw(
    rows: Iterable[_Row], task: Task, account: _Account
) -> Iterator[tuple[str, bytes] | None]:
    """Yield the key and the content of each overlay; None for an image without one."""
    memory, drawing = Memory(_FETCHED_BYTES), Lock()

    def draw(row: _Row) -> tuple[_Row, bytes | Exception]:
        size = row["width"], row["height"]
        try:
            with (
                fetched(memory, row["uri"], row["size"], row["etag"]) as content,
                drawing,  # which takes several times the memory of the overlay
            ):
                return row, draw_overlay(
                    content, row["mask"], *size, task.max_side, task.value_range
                )
        except (DecodeError, FetchError) as error:
            return row, error

    for row, drawn in map_ahead(draw, rows, _REQUESTS):
        if isinstance(drawn, FetchError) and drawn.kind not in _OF_THE_IMAGE:
            account.unfetched += 1
            if account.unfetched == _FAILURES:
                raise InputError(
                    f"{_FAILURES} images in a row cannot be fetched, the last {row['uri']}: {drawn}"
                )
        else:
            account.unfetched = 0
        if isinstance(drawn, Exception):
            account.skipped.append((row["uri"], str(drawn)))
            yield None
        else:
            yield row["key"], drawn


def _describe(rows: Iterable[_Row], task: Task, account: _Account) -> Iterator[_Row]:
    for row, mask in _decode(rows, task, account):
        if mask.shape != (row["height"], row["width"]):
            mask = scale_mask(mask, row["width"], row["height"])
        yield {**row, "file_name": row["key"], "annotations": annotate(mask)}


def _decode(
    rows: Iterable[_Row], task: Task, account: _Account
) -> Iterator[tuple[_Row, npt.NDArray[np.uint8]]]:
    """Yield rows with the class ids of their masks, uint8 [H, W]."""
    for row in rows:
        try:
            mask = decode_class_ids(row["mask"], task.classes)
        except ValueError as error:
            account.skipped.append((row["uri"], str(error)))
            continue
        yield row, mask

"""The gallery of a report: a few images with their masks, as small pictures within the page.

The images are those whose pictures were kept as they were segmented: no image is fetched again.
"""

import base64
import logging
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segray.bulk.candidates import SIDE
from segray.bulk.sample import Place
from segray.errors import InputError
from segray.page.charts import Colour, share_bar, swatch
from segray.page.markup import (
    Element,
    format_confidence,
    format_count,
    format_share,
    tag,
    uri_tag,
)
from segray.pixels.labels import Labels
from segray.pixels.masks import decode_mask, encode_mask
from segray.pixels.thumbnails import fit_size, scale_mask
from segray.storage.parallel import map_ahead
from segray.storage.tables import read_parquet

log = logging.getLogger(__name__)

_Content = TypeVar("_Content")

# Classes that a tile writes out; all classes of the image are in its bar and can be filtered by.
_CLASSES = 6
_READERS = 16  # files that are fetched at once
# Rows of masks in memory at a time: an image of 12 megapixels has one of some hundred kilobytes.
_MASKS = 16


@dataclass(frozen=True)
class Shot:
    """An image of the sample.

    Attributes:
        uri: URI of the image.
        width: width of the image, in pixels.
        height: height of the image, in pixels.
        shares: share of each class, 0 to 1.
        confidences: mean confidence of each class, 0 to 1; None without pixels of it.
        expected_iou: that of the image, 0 to 1.
        image: a JPEG file; None where there is none.
        mask: a PNG file of the same size; None where it is damaged.
    """

    uri: str
    width: int
    height: int
    shares: Sequence[float]
    confidences: Sequence[float | None]
    expected_iou: float
    image: bytes | None
    mask: bytes | None


def take_shots(rows: Sequence[Place], pictures: dict[int, Place], labels: Labels) -> list[Shot]:
    """Read rows of results, and the pictures of their images.

    Args:
        rows: in the order of files and rows.
        pictures: rows of the gallery by the ids of their images.
        labels: the classes.

    Raises:
        InputError: a file cannot be read.
    """
    columns = ["id", "uri", "width", "height", "expected_iou"]
    columns += [f"{p}_{name}" for name in labels.names for p in ("pixels", "confidence")]
    shots = {
        row["id"]: _draw(row | {"mask": mask}, labels)
        for found in _read_files(rows, partial(_read_rows, columns))
        for row, mask in found
    }
    images = _read_pictures({id: pictures[id] for id in shots if id in pictures})
    return [replace(shot, image=images.get(id)) for id, shot in shots.items()]


def take_pictures(rows: Sequence[Place], pictures: dict[int, Place]) -> dict[str, bytes]:
    """Read the pictures of images by their URIs: JPEG files; images without one are left out.

    Args:
        rows: rows of results, in the order of files and rows.
        pictures: as in `take_shots`.

    Raises:
        InputError: a file cannot be read.
    """

    def read(rows: Sequence[int], file: pq.ParquetFile) -> pa.Table:
        return file.read(columns=["id", "uri"]).take(rows)

    uris = {row["id"]: row["uri"] for found in _read_files(rows, read) for row in found.to_pylist()}
    images = _read_pictures({id: pictures[id] for id in uris if id in pictures})
    return {uris[id]: image for id, image in images.items()}


def _read_files(
    places: Sequence[Place], read: Callable[[Sequence[int], pq.ParquetFile], _Content]
) -> Iterator[_Content]:
    """Apply a function to the rows of each file, a few files ahead of use."""
    files: dict[str, list[int]] = {}
    for place in places:
        files.setdefault(place.uri, []).append(place.row)
    return map_ahead(
        lambda item: read_parquet(item[0], partial(read, item[1])), files.items(), _READERS
    )


def _read_pictures(places: dict[int, Place]) -> dict[int, bytes]:
    """JPEG files by the ids of their images, without those of damaged files."""
    rows: dict[str, dict[int, int]] = defaultdict(dict)
    for id, place in places.items():
        rows[place.uri][id] = place.row

    def read(uri: str) -> dict[int, bytes]:
        try:
            images = read_parquet(uri, lambda file: file.read(columns=["image"]))["image"]
        except InputError as error:
            log.info(f"the report does without some pictures: {error}")
            return {}
        return {id: images[row].as_py() for id, row in rows[uri].items()}

    return {id: image for found in map_ahead(read, rows, _READERS) for id, image in found.items()}


def _read_rows(
    columns: list[str], rows: Sequence[int], file: pq.ParquetFile
) -> list[tuple[dict[str, Any], bytes | None]]:
    """Some rows of a file, and the PNG file of each one's mask."""
    found = file.read(columns=columns).take(rows).to_pylist()
    return list(zip(found, _read_masks(file, rows), strict=True))


def _read_masks(file: pq.ParquetFile, rows: Sequence[int]) -> Iterator[bytes | None]:
    """The PNG files in these rows, in ascending order."""
    left = list(rows)
    first = 0
    for batch in file.iter_batches(_MASKS, columns=["mask"]):
        while left and left[0] < first + len(batch):
            mask = batch["mask"][left.pop(0) - first].as_py()
            yield mask and mask["bytes"]
        if not left:
            return
        first += len(batch)


def _draw(row: dict[str, Any], labels: Labels) -> Shot:
    """The shot without its image."""
    pixels = np.array([row[f"pixels_{name}"] for name in labels.names])
    return Shot(
        uri=row["uri"],
        width=row["width"],
        height=row["height"],
        shares=(pixels / max(1, pixels.sum())).tolist(),
        confidences=[row[f"confidence_{name}"] for name in labels.names],
        expected_iou=row["expected_iou"],
        image=None,
        mask=shrink_mask(row["mask"], row["width"], row["height"], labels),
    )


def shrink_mask(mask: bytes | None, width: int, height: int, labels: Labels) -> bytes | None:
    """Return a mask as small as its picture, a PNG file; None if it is damaged or not there.

    Args:
        mask: the PNG file of results.
        width: the width of the image, in pixels.
        height: its height, likewise.
        labels: the classes.
    """
    if mask is None:
        return None
    size = fit_size(width, height, SIDE)
    try:
        return encode_mask(scale_mask(decode_mask(mask), *size), labels.palette)
    except (OSError, SyntaxError, TypeError, ValueError, IndexError):
        # Pillow raises these on a damaged PNG.
        return None


def draw_tiles(shots: Sequence[Shot], labels: Labels) -> Iterator[Element]:
    """The list item of each image, with what the page filters and sorts it by as attributes."""
    folder = posixpath.commonprefix([shot.uri for shot in shots]).rpartition("/")[0] + "/"
    for shot in shots:
        yield _draw_tile(shot, labels, shot.uri.removeprefix(folder))


def _draw_tile(shot: Shot, labels: Labels, name: str) -> Element:
    palette = labels.palette
    there = [i for i in range(len(labels)) if shot.shares[i] > 0]
    there.sort(key=lambda i: -shot.shares[i])
    rows = [_draw_class(i, palette[i], shot, labels) for i in there[:_CLASSES]]
    if len(there) > _CLASSES:
        rows.append(tag("li", f"and {len(there) - _CLASSES} more classes", class_="rest"))
    return tag(
        "li",
        tag(
            "div",
            draw_picture(shot.image, "image", "image/jpeg", f"image {name}"),
            draw_picture(shot.mask, "mask", "image/png", f"mask of {name}"),
            class_="pictures",
        ),
        share_bar(
            [shot.shares[i] for i in there],
            [palette[i] for i in there],
            "shares of the classes",
        ),
        tag("h3", uri_tag(name), title=shot.uri),
        tag(
            "p",
            f"{format_count(shot.width)} \N{MULTIPLICATION SIGN} {format_count(shot.height)} px, "
            f"expected IoU {format_confidence(shot.expected_iou)}",
            class_="size",
        ),
        tag("ul", *rows, class_="classes"),
        tag("p", class_="chosen", hidden="hidden"),
        None if shot.mask else tag("p", "The mask is damaged.", class_="note"),
        class_="tile" if shot.image else "tile bare",
        data_shares=" ".join(f"{share:.7g}" for share in shot.shares),
        data_confidences=" ".join(
            "-" if value is None else f"{value:.7g}" for value in shot.confidences
        ),
        data_expected_iou=f"{shot.expected_iou:.7g}",
    )


def _draw_class(class_id: int, colour: Colour, shot: Shot, labels: Labels) -> Element:
    return tag(
        "li",
        swatch(colour),
        tag("span", labels.names[class_id], class_="name"),
        tag("span", format_share(shot.shares[class_id])),
        tag("span", format_confidence(shot.confidences[class_id])),
        data_class=class_id,
    )


def draw_picture(content: bytes | None, class_: str, kind: str, text: str) -> Element | None:
    """A picture within the page; None if there is none."""
    if content is None:
        return None
    data = base64.b64encode(content).decode()
    return tag("img", class_=class_, alt=text, src=f"data:{kind};base64,{data}")

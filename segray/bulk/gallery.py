"""The gallery of a report: a few images with their masks, as small pictures within the page."""

import base64
import posixpath
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from segray.bulk.charts import Colour, share_bar, swatch
from segray.bulk.markup import Element, format_confidence, format_count, format_share, tag, uri_tag
from segray.bulk.survey import Place, open_parquet
from segray.errors import InputError
from segray.pixels.decoding import DecodeError, Picture, read_picture
from segray.pixels.labels import Labels
from segray.pixels.masks import decode_mask, encode_mask
from segray.pixels.thumbnails import encode_thumbnail, fit_size, scale_mask
from segray.storage.uri import read_bytes

#: The longest side of a picture in the page, in pixels.
SIDE = 256

# What a tile writes out; all classes of the image are in its bar, and can be filtered by.
_CLASSES = 6
# A store that has become slow must not hold up a job whose work is done.
_FETCH_SECONDS = 120
# Rows of masks in memory at a time: an image of 12 megapixels has one of some hundred kilobytes.
_MASKS = 16


@dataclass(frozen=True)
class Shot:
    """An image of the sample.

    Attributes:
        uri: of the image.
        width: its own, in pixels, as the results have it.
        height: likewise.
        shares: of each class, 0 to 1.
        confidences: mean of each class, 0 to 1; None of one that is not there.
        image: a JPEG file; None where there is none to be had.
        mask: a PNG file of the same size; None where it is damaged.
        note: what is missing and why, or nothing.
    """

    uri: str
    width: int
    height: int
    shares: Sequence[float]
    confidences: Sequence[float | None]
    image: bytes | None
    mask: bytes | None
    note: str

    @property
    def confidence(self) -> float:
        """The mean over all pixels, 0 to 1."""
        return sum(s * (c or 0) for s, c in zip(self.shares, self.confidences, strict=True))


def take_shots(
    places: Sequence[Place], labels: Labels, tell: Callable[[str], None]
) -> Iterator[Shot]:
    """Read rows of results, and fetch their images again.

    Args:
        places: the rows, in the order of files, row groups and rows.
        labels: the classes.
        tell: is called with a line where images could not be had.

    Raises:
        InputError: a results file cannot be read.
    """
    started, missing = time.monotonic(), 0
    for row in _read_rows(places, labels):
        in_time = time.monotonic() - started < _FETCH_SECONDS
        shot = _draw(row, labels, in_time)
        missing += shot.image is None
        yield shot
    if missing:
        tell(
            f"the report shows the mask alone of {missing} in {len(places)} images, which could "
            "not be read again"
        )


def _read_rows(places: Sequence[Place], labels: Labels) -> Iterator[dict[str, Any]]:
    columns = ["uri", "width", "height"]
    columns += [f"{p}_{name}" for name in labels.names for p in ("pixels", "confidence")]
    for (uri, group), found in groupby(places, key=lambda place: (place.uri, place.group)):
        wanted = [place.row for place in found]
        with open_parquet(uri) as file:
            rows = file.read_row_group(group, columns=columns).take(wanted).to_pylist()
            for row, mask in zip(rows, _read_masks(file, group, wanted), strict=True):
                yield row | {"mask": mask}


def _read_masks(file: pq.ParquetFile, group: int, rows: Sequence[int]) -> Iterator[bytes | None]:
    """The PNG files in these rows, in ascending order, of a row group."""
    left = list(rows)
    first = 0
    for batch in file.iter_batches(_MASKS, row_groups=[group], columns=["mask"]):
        while left and left[0] < first + len(batch):
            mask = batch["mask"][left.pop(0) - first].as_py()
            yield mask and mask["bytes"]
        if not left:
            return
        first += len(batch)


def _draw(row: dict[str, Any], labels: Labels, in_time: bool) -> Shot:
    pixels = np.array([row[f"pixels_{name}"] for name in labels.names])
    width, height = row["width"], row["height"]
    size = fit_size(width, height, SIDE)
    notes = []
    try:
        if not in_time:
            raise InputError("the store was too slow")
        picture = read_picture(read_bytes(row["uri"]), max(size))
        _check_size(picture, width, height)
        image = encode_thumbnail(picture, SIDE)
    except (InputError, DecodeError) as error:
        image = None
        notes.append(f"The image could not be shown: {_without(str(error), row['uri'])}")
    try:
        mask = encode_mask(scale_mask(decode_mask(row["mask"]), *size), labels.palette)
    except (OSError, SyntaxError, TypeError, ValueError, IndexError):
        # What Pillow raises on a damaged PNG, or the lack of one.
        mask = None
        notes.append("The mask is damaged.")
    return Shot(
        uri=row["uri"],
        width=width,
        height=height,
        shares=(pixels / max(1, pixels.sum())).tolist(),
        confidences=[row[f"confidence_{name}"] for name in labels.names],
        image=image,
        mask=mask,
        note=" ".join(notes),
    )


def _check_size(picture: Picture, width: int, height: int) -> None:
    if (picture.width, picture.height) != (width, height):
        raise DecodeError(
            f"it has become another one since, of {picture.width} x {picture.height} pixels"
        )


def _without(reason: str, uri: str) -> str:
    """The reason without the URI, which stands beside it."""
    return reason.replace(f"cannot read {uri}: ", "")


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
            _picture(shot.image, "image", "image/jpeg", f"image {name}"),
            _picture(shot.mask, "mask", "image/png", f"mask of {name}"),
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
            f"confidence {format_confidence(shot.confidence)}",
            class_="size",
        ),
        tag("ul", *rows, class_="classes"),
        tag("p", class_="chosen", hidden="hidden"),
        tag("p", shot.note, class_="note") if shot.note else None,
        class_="tile" if shot.image else "tile bare",
        data_shares=" ".join(f"{share:.7g}" for share in shot.shares),
        data_confidences=" ".join(
            "-" if value is None else f"{value:.7g}" for value in shot.confidences
        ),
        data_confidence=f"{shot.confidence:.7g}",
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


def _picture(content: bytes | None, class_: str, kind: str, text: str) -> Element | None:
    if content is None:
        return None
    data = base64.b64encode(content).decode()
    return tag("img", class_=class_, alt=text, src=f"data:{kind};base64,{data}")

"""The gallery of a report: a few images with their masks, as small pictures within the page.

The images are those whose pictures were kept as they were segmented: no image is fetched again.
"""

import base64
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from segray.bulk.candidates import SIDE
from segray.bulk.charts import Colour, share_bar, swatch
from segray.bulk.markup import Element, format_confidence, format_count, format_share, tag, uri_tag
from segray.bulk.survey import Place
from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.pixels.masks import decode_mask, encode_mask
from segray.pixels.thumbnails import fit_size, scale_mask
from segray.storage.tables import GALLERY_SCHEMA, read_parquet, table_uris
from segray.storage.uri import join_uri

# What a tile writes out; all classes of the image are in its bar, and can be filtered by.
_CLASSES = 6
# Files of pictures that are looked into: those of half a million images.
_FILES = 1000
_READERS = 16  # files that are fetched at once
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
        image: a JPEG file; None where there is none.
        mask: a PNG file of the same size; None where it is damaged.
    """

    uri: str
    width: int
    height: int
    shares: Sequence[float]
    confidences: Sequence[float | None]
    image: bytes | None
    mask: bytes | None

    @property
    def confidence(self) -> float:
        """The mean over all pixels, 0 to 1."""
        return sum(s * (c or 0) for s, c in zip(self.shares, self.confidences, strict=True))


def find_pictures(output: str, tell: Callable[[str], None]) -> dict[int, Place]:
    """Where the pictures are that were kept, by the ids of their images.

    Of very many files some are left out; one that is damaged is passed over.

    Args:
        output: URI of a segmentation.
        tell: is called with a line for each such file.
    """
    folder = join_uri(output, "gallery")

    def read(uri: str, file: pq.ParquetFile) -> dict[int, Place]:
        if not file.schema_arrow.equals(GALLERY_SCHEMA):
            raise InputError(f"{uri} has other columns than id and image")
        found: dict[int, Place] = {}
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["id"])["id"].to_pylist()
            found |= {id: Place(uri, group, row) for row, id in enumerate(ids)}
        return found

    def try_to_read(uri: str) -> dict[int, Place]:
        try:
            return read_parquet(uri, partial(read, uri))
        except InputError as error:
            tell(f"the report does without some pictures: {error}")
            return {}

    # The names are digests, so the first of them are a random sample.
    uris = table_uris(folder)[:_FILES]
    with ThreadPoolExecutor(_READERS) as readers:
        return {
            id: place for found in readers.map(try_to_read, uris) for id, place in found.items()
        }


def take_shots(rows: Sequence[Place], pictures: dict[int, Place], labels: Labels) -> list[Shot]:
    """Read rows of results, and the pictures of their images.

    Args:
        rows: in the order of files, row groups and rows.
        pictures: of `find_pictures`.
        labels: the classes.

    Raises:
        InputError: a file cannot be read.
    """
    shots = {row["id"]: _draw(row, labels) for row in _read_rows(rows, labels)}
    images = _read_pictures({id: pictures[id] for id in shots if id in pictures})
    return [replace(shot, image=images.get(id)) for id, shot in shots.items()]


def _read_pictures(places: dict[int, Place]) -> dict[int, bytes]:
    """JPEG files by the ids of their images."""
    ids = defaultdict(list)
    for id, place in places.items():
        ids[place.uri, place.group].append(id)

    def read(group: tuple[str, int]) -> dict[int, bytes]:
        uri, number = group
        images = read_parquet(uri, lambda file: file.read_row_group(number, columns=["image"]))
        return {id: images["image"][places[id].row].as_py() for id in ids[group]}

    with ThreadPoolExecutor(_READERS) as readers:
        return {id: image for found in readers.map(read, ids) for id, image in found.items()}


def _read_rows(places: Sequence[Place], labels: Labels) -> Iterator[dict[str, Any]]:
    columns = ["id", "uri", "width", "height"]
    columns += [f"{p}_{name}" for name in labels.names for p in ("pixels", "confidence")]
    for (uri, group), found in groupby(places, key=lambda place: (place.uri, place.group)):
        wanted = [place.row for place in found]
        rows, masks = read_parquet(uri, partial(_read_group, group, wanted, columns))
        for row, mask in zip(rows, masks, strict=True):
            yield row | {"mask": mask}


def _read_group(
    group: int, wanted: Sequence[int], columns: list[str], file: pq.ParquetFile
) -> tuple[list[dict[str, Any]], list[bytes | None]]:
    """Some rows of a row group, and their masks."""
    rows = file.read_row_group(group, columns=columns).take(wanted).to_pylist()
    return rows, list(_read_masks(file, group, wanted))


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


def _draw(row: dict[str, Any], labels: Labels) -> Shot:
    """The shot without its image."""
    pixels = np.array([row[f"pixels_{name}"] for name in labels.names])
    size = fit_size(row["width"], row["height"], SIDE)
    try:
        mask = encode_mask(scale_mask(decode_mask(row["mask"]), *size), labels.palette)
    except (OSError, SyntaxError, TypeError, ValueError, IndexError):
        # What Pillow raises on a damaged PNG, or the lack of one.
        mask = None
    return Shot(
        uri=row["uri"],
        width=row["width"],
        height=row["height"],
        shares=(pixels / max(1, pixels.sum())).tolist(),
        confidences=[row[f"confidence_{name}"] for name in labels.names],
        image=None,
        mask=mask,
    )


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
        None if shot.mask else tag("p", "The mask is damaged.", class_="note"),
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

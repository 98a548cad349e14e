"""COCO: all masks of a segmentation in one annotations.json that pycocotools can read.

Each class in an image is one annotation with ``iscrowd`` 1, COCO's mark for a region that is not a
single object; its segmentation is RLE, whereas an object's is a polygon
(https://cocodataset.org/#format-data). A class of a semantic mask is such a region: all the pets in
the picture, not one of them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pycocotools import mask as coco_mask

from segray.export.stream import write_stream
from segray.storage.files import read_bytes, write_bytes
from segray.storage.ids import Ids, are_in, as_ids, find_ids
from segray.storage.tables import open_parquet, read_tables, table_uris, write_table
from segray.storage.uri import exists, join_uri

ANNOTATIONS = "annotations.json"

# The part files that are joined into it, and a digest of the ids that it was last joined from.
_PARTS = ".export/parts"
_JOINED = ".export/joined"
# Rows of a part file: at most as many images are exported again after an interruption. The number
# of RLE letters limits its memory.
_PART_ROWS = 256
_PART_LETTERS = 64 << 20
# Rows read at a time, which limits the memory of joining.
_BATCH_ROWS = 64

_ANNOTATION = pa.struct(
    [
        ("category_id", pa.int32()),
        ("counts", pa.string()),
        ("area", pa.int64()),
        ("bbox", pa.list_(pa.int32())),
    ]
)
_PART_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("file_name", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("annotations", pa.list_(_ANNOTATION)),
    ]
)


def annotate(mask: npt.NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Describe a mask by one annotation per class.

    Args:
        mask: uint8 [H, W] of class ids.

    Returns:
        For each class present, in the order of class ids: ``category_id`` (the class id plus one,
        because COCO counts from one), ``counts`` (compressed RLE, column by column), ``area`` in
        pixels, and ``bbox`` (x, y, width, height in pixels).
    """
    height, width = mask.shape
    # The runs of all classes in one pass; a bitmap per class would cost C times as much.
    pixels = mask.ravel(order="F")
    starts = np.flatnonzero(np.concatenate(([True], pixels[1:] != pixels[:-1])))
    ends = np.append(starts[1:], pixels.size)
    values = pixels[starts]
    annotations = []
    for class_id in np.unique(values).tolist():
        own = values == class_id
        borders = np.stack([starts[own], ends[own]], axis=-1).ravel()
        # Alternately the lengths outside and inside the class. A last run of length 0 is dropped, a
        # first one is not.
        lengths = np.diff(borders, prepend=0, append=pixels.size)
        counts = lengths[: -1 if lengths[-1] == 0 else None].tolist()
        size = [height, width]
        rle = coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)
        annotations.append(
            {
                "category_id": class_id + 1,
                "counts": rle["counts"].decode("ascii"),
                "area": int(lengths[1::2].sum()),
                "bbox": [round(value) for value in coco_mask.toBbox(rle).tolist()],
            }
        )
    return annotations


def write_parts(output: str, rows: Iterable[dict[str, Any]]) -> Iterator[int]:
    """Write part files of annotations.json.

    Args:
        output: the folder of the export.
        rows: for each image ``id, file_name, width, height`` and the ``annotations`` of `annotate`.

    Yields:
        The number of images in each part file, once it is written.

    Raises:
        InputError: a part file cannot be written.
    """
    part: list[dict[str, Any]] = []
    letters = 0
    for row in rows:
        part.append(row)
        letters += sum(len(annotation["counts"]) for annotation in row["annotations"])
        if len(part) == _PART_ROWS or letters > _PART_LETTERS:
            yield _write_part(output, part)
            part, letters = [], 0
    if part:
        yield _write_part(output, part)


def _write_part(output: str, rows: list[dict[str, Any]]) -> int:
    # The same rows give the same name, so a task that Ray runs again replaces its file.
    ids = sorted(row["id"] for row in rows)
    name = hashlib.blake2b(repr(ids).encode(), digest_size=12).hexdigest()
    table = pa.Table.from_pylist(rows, _PART_SCHEMA)
    write_table(join_uri(output, _PARTS, f"{name}.parquet"), table)
    return len(rows)


def read_part_ids(output: str) -> Ids:
    """Return the ids of all images in the part files, int64 [N], ascending and distinct.

    Raises:
        InputError: a part file cannot be read.
    """
    ids = [as_ids(table["id"]) for table in read_tables(join_uri(output, _PARTS), ["id"])]
    return np.unique(np.concatenate(ids)) if ids else np.zeros(0, np.int64)


def join_parts(output: str, classes: Sequence[str], ids: Ids, info: dict[str, Any]) -> bool:
    """Join the part files into annotations.json, without holding them in memory.

    Images and annotations are numbered from 1, because not every reader supports ids of 64 bits.
    Nothing is written if the file exists and was joined from the same images.

    Args:
        output: the folder of the export.
        classes: the names of the classes, in the order of their ids.
        ids: int64 [N], ascending: the images to include. Others are left out.
        info: the content of the key ``info``, JSON-ready.

    Returns:
        True if the file was written.

    Raises:
        InputError: a part file cannot be read, or the file cannot be written.
    """
    uri, note = join_uri(output, ANNOTATIONS), join_uri(output, _JOINED)
    digest = hashlib.blake2b(ids.tobytes(), digest_size=16).hexdigest().encode()
    if exists(uri) and exists(note) and read_bytes(note) == digest:
        return False
    categories = [
        {"id": number, "name": name, "supercategory": ""}
        for number, name in enumerate(classes, start=1)
    ]
    with write_stream(uri) as file:
        file.write(b'{"info": %s,\n' % json.dumps(info).encode())
        file.write(b'"categories": %s,\n"images": [\n' % json.dumps(categories).encode())
        for part in _lines(_images(output, ids)):
            file.write(part)
        file.write(b'\n],\n"annotations": [\n')
        for part in _lines(_annotations(output, ids)):
            file.write(part)
        file.write(b"\n]}\n")
    write_bytes(note, digest)
    return True


def _images(output: str, ids: Ids) -> Iterator[dict[str, Any]]:
    rows = _joined_rows(output, ids, ["id", "file_name", "width", "height"])
    for number, row in enumerate(rows, start=1):
        yield {**row, "id": number}


def _annotations(output: str, ids: Ids) -> Iterator[dict[str, Any]]:
    rows = _joined_rows(output, ids, ["id", "width", "height", "annotations"])
    number = 0
    for image, row in enumerate(rows, start=1):
        for annotation in row["annotations"]:
            number += 1
            yield {
                "id": number,
                "image_id": image,
                "category_id": annotation["category_id"],
                "segmentation": {
                    "size": [row["height"], row["width"]],
                    "counts": annotation["counts"],
                },
                "area": annotation["area"],
                "bbox": annotation["bbox"],
                "iscrowd": 1,
            }


def _joined_rows(output: str, ids: Ids, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the first row of each image, always in the same order."""
    left = np.ones(len(ids), bool)
    for uri in table_uris(join_uri(output, _PARTS)):
        with open_parquet(uri) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                found = batch.column("id").to_numpy()
                # Skip rows of images that are gone or changed, and duplicates from tasks that ran
                # twice.
                chosen = are_in(found, ids)
                places = find_ids(ids, found[chosen])
                chosen[chosen] = left[places]
                left[places] = False
                yield from batch.filter(pa.array(chosen)).to_pylist()


def _lines(items: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    separator = b""
    for item in items:
        yield separator + json.dumps(item).encode()
        separator = b",\n"

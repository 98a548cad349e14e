"""What a manifest says about images, of which there may be very many."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segray.results.segmentation import open_segmentation, read_listed
from segray.storage.tables import MANIFEST_SCHEMA, write_table
from tests.segmentations import make_segmentation


def write_manifest(folder: str, files: int, length: int) -> None:
    """Write a manifest of two images per file, with ETags that are this long."""
    for number in range(files):
        ids = [files + number, files - 1 - number]
        etags = [f"{id} ".ljust(length, "x") for id in ids]
        columns = {"id": ids, "uri": ["/a.jpg"] * 2, "size": ids, "etag": etags}
        table = pa.table(columns, MANIFEST_SCHEMA)
        write_table(f"{folder}/manifest/part-{number:05}.parquet", table)


# With long ETags, as many bytes of text as Arrow's 32-bit offsets cannot count.
@pytest.mark.parametrize("length", [40, pytest.param(1 << 26, marks=pytest.mark.slow)])
def test_images_are_found_in_a_manifest_of_any_size(tmp_path: Path, length: int) -> None:
    made = make_segmentation(str(tmp_path), ["a.jpg"])
    write_manifest(made.uri, 17, length)
    segmentation = open_segmentation(made.uri)
    assert read_listed(segmentation, np.array([5, 33])).ids.tolist() == [5, 33]
    listed = read_listed(segmentation)
    assert listed.ids.tolist() == list(range(34))
    sizes, etags = listed.find(np.array([5, 33]))
    assert sizes == [5, 33]
    assert [str(etag).partition(" ")[0] for etag in etags] == ["5", "33"]
    assert [len(str(etag)) for etag in etags] == [length] * 2

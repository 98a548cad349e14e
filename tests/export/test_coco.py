"""What annotations.json says of a mask, against the mask and against pycocotools' own encoder."""

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_mask

from segray.export.coco import annotate
from tests.segmentations import draw_mask

RANDOM = np.random.default_rng(3)

MASKS = {
    "one pixel": np.zeros((1, 1), np.uint8),
    "one class": np.full((7, 5), 2, np.uint8),
    "a row": np.array([[0, 1, 1, 0, 2]], np.uint8),
    "a column": np.array([[0], [1], [1], [0], [2]], np.uint8),
    "blocks and specks": draw_mask(61, 47, 1),
    "noise of 255 classes": RANDOM.integers(0, 255, (90, 70), dtype=np.uint8),
    "long runs": np.repeat(np.arange(3, dtype=np.uint8), 40_000).reshape(300, 400),
    "a run over columns": np.pad(np.ones((2, 9), np.uint8), ((3, 0), (0, 4))),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_each_class_is_a_region_that_pycocotools_reads(mask: npt.NDArray[np.uint8]) -> None:
    annotations = annotate(mask)
    assert [a["category_id"] - 1 for a in annotations] == np.unique(mask).tolist()
    for annotation in annotations:
        region = mask == annotation["category_id"] - 1
        rle = {"size": list(mask.shape), "counts": annotation["counts"].encode()}
        assert np.array_equal(coco_mask.decode(rle), region)
        assert rle["counts"] == coco_mask.encode(np.asfortranarray(region, np.uint8))["counts"]
        assert annotation["area"] == np.count_nonzero(region)
        rows, columns = np.nonzero(region)
        assert annotation["bbox"] == [
            columns.min(),
            rows.min(),
            columns.max() - columns.min() + 1,
            rows.max() - rows.min() + 1,
        ]

"""Regions: those of a mask, however it arrives, and the confidence of each."""

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage
from PIL import Image

from segray.pixels.masks import MaskBuilder, segment_logits
from segray.pixels.regions import RegionFinder, Regions

CLASSES = 4


def draw_mask(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Blobs with specks in them, or in every third mask noise, whose regions wind through it."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, CLASSES, (height, width), dtype=np.uint8)
    if seed % 3 == 0:
        return noise // 2
    cells = Image.fromarray(rng.integers(0, CLASSES, rng.integers(1, 8, 2), dtype=np.uint8))
    blobs = np.asarray(cells.resize((width, height), Image.Resampling.NEAREST))
    return np.where(rng.random((height, width)) < 0.05, noise, blobs)


def find_all(
    mask: npt.NDArray[np.uint8], confidence: npt.NDArray[np.float32]
) -> list[tuple[float, ...]]:
    """The regions as scipy finds them, class by class."""
    found = []
    height, width = mask.shape
    for class_id in np.unique(mask).tolist():
        labels, count = scipy.ndimage.label(mask == class_id)
        for label in range(1, count + 1):
            y, x = np.nonzero(labels == label)
            left, top, right, bottom = x.min(), y.min(), x.max() + 1, y.max() + 1
            touches = left == 0 or top == 0 or right == width or bottom == height
            box = (left, top, right - left, bottom - top)
            means = (x.mean(), y.mean(), confidence[y, x].mean(dtype=np.float64))
            found.append((class_id, len(x), *box, *means, touches))
    return found


def as_rows(regions: Regions) -> list[tuple[float, ...]]:
    return [
        (class_id, area, *box, *centroid, confidence, touches)
        for class_id, area, box, centroid, confidence, touches in zip(
            regions.class_ids,
            regions.areas,
            regions.boxes,
            regions.centroids,
            regions.confidences,
            regions.touch_border,
            strict=True,
        )
    ]


def find(
    mask: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.float32],
    seed: int,
    min_area: int = 1,
) -> Regions:
    """The regions of a mask that arrives in pieces of random heights."""
    rng = np.random.default_rng(seed)
    height, width = mask.shape
    finder, row = RegionFinder(height, width, min_area), 0
    while row < height:
        end = row + int(rng.integers(1, max(2, height // 2)))
        part = mask[row:end]
        # All at once, or as several pieces of evidence.
        places = np.arange(row * width, row * width + part.size)
        for some in np.array_split(places, rng.integers(1, 4)):
            finder.note(some, confidence.ravel()[some])
        finder.add(part)
        row = end
    return finder.finish()


@pytest.mark.parametrize("seed", range(30))
def test_regions_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 50, 2) if seed > 2 else [(1, 40), (40, 1), (1, 1)][seed]
    mask = draw_mask(height, width, seed)
    confidence = rng.random(mask.shape, dtype=np.float32)
    found = as_rows(find(mask, confidence, seed))
    expected = find_all(mask, confidence)
    assert len(found) == len(expected)
    np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-6)


def test_they_are_in_the_order_of_classes_and_places() -> None:
    mask = draw_mask(40, 50, 1)
    regions = find(mask, np.ones(mask.shape, np.float32), 1)
    places = [(row[0], row[3], row[2]) for row in as_rows(regions)]
    assert places == sorted(places)


def test_smaller_regions_do_not_count() -> None:
    mask = draw_mask(60, 60, 2)
    confidence = np.random.default_rng(2).random(mask.shape, dtype=np.float32)
    every = as_rows(find(mask, confidence, 2))
    large = as_rows(find(mask, confidence, 2, min_area=7))
    assert large == [row for row in every if row[1] >= 7]
    assert 0 < len(large) < len(every)


def test_pixels_that_share_a_corner_only_are_apart() -> None:
    regions = find(np.eye(3, dtype=np.uint8), np.ones((3, 3), np.float32), 0)
    assert regions.areas.tolist() == [3, 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("logits_size", "size"),
    [((16, 16), (500, 400)), ((128, 128), (400, 600)), ((8, 8), (90, 120)), ((200, 300),) * 2],
    ids=["large cells", "small cells", "few pixels", "a logit a pixel"],
)
@pytest.mark.parametrize("rows_at_once", [1, 1000])
def test_regions_of_logits_add_up_to_the_statistics_of_their_class(
    logits_size: tuple[int, int], size: tuple[int, int], rows_at_once: int
) -> None:
    rng = np.random.default_rng(3)
    planes = [Image.fromarray(rng.normal(0, 3, (7, 8)).astype(np.float32)) for _ in range(CLASSES)]
    logits = np.stack(
        [np.asarray(plane.resize(logits_size[::-1], Image.Resampling.BICUBIC)) for plane in planes],
        axis=-1,
    )
    finder = RegionFinder(*size, min_area=1)
    builder = MaskBuilder(logits.shape, *size, finder)
    for row in range(0, len(logits), rows_at_once):
        builder.add(logits[row : row + rows_at_once])
    mask, statistics = builder.finish()
    regions = finder.finish()

    plain_mask, plain_statistics = segment_logits(logits, *size)
    np.testing.assert_array_equal(mask, plain_mask)
    np.testing.assert_array_equal(statistics.pixels, plain_statistics.pixels)
    sums = np.bincount(regions.class_ids, regions.areas, CLASSES)
    assert sums.tolist() == statistics.pixels.tolist()
    confidence = np.bincount(regions.class_ids, regions.areas * regions.confidences, CLASSES)
    np.testing.assert_allclose(confidence, statistics.summed_confidence, rtol=1e-6)
    assert len({tuple(row[:2]) for row in as_rows(regions)}) > CLASSES


def test_the_confidence_of_a_region_is_the_mean_of_its_pixels() -> None:
    """Two regions of a class: one of which the network is sure, and one of which it is not."""
    steep = np.zeros((64, 64, 2), dtype=np.float32)
    steep[..., 0] = 1
    steep[8:24, 8:24] = (0, 9)
    steep[40:56, 40:56] = (0, 0.5)
    finder = RegionFinder(640, 640, min_area=1)
    builder = MaskBuilder(steep.shape, 640, 640, finder)
    builder.add(steep)
    builder.finish()
    regions = finder.finish()
    sure, unsure = regions.confidences[regions.class_ids == 1]
    assert sure == pytest.approx(1, abs=0.02)
    assert unsure == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.02)

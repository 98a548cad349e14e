"""Crops: what the network sees of images that are not fitted to it."""

import numpy as np
import numpy.typing as npt
import pytest

from segray.pixels.labels import IGNORED
from segray.training.config import TrainConfig
from segray.training.data.augmentation import Augmentation
from segray.training.data.crops import Crops, WindowedExamples, count_crops, place_crops

NOWHERE = np.full((1, 4), np.nan)


def numbered(height: int, width: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """An image whose pixels tell where they are, and a mask of one class."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, rows], -1), np.zeros((height, width), np.uint8)


def cut(corner: tuple[int, int], shape: tuple[int, int], height: int, width: int):
    crops = Crops(np.array([0]), np.array([corner]), NOWHERE, NOWHERE, shape)
    image, mask = numbered(height, width)
    pixels, class_ids = crops.cut([image], [mask])
    return pixels[0], class_ids[0]


def still(count: int, margins: tuple[int, int] = (0, 0)) -> np.ndarray:
    """No augmentation, of crops with margins."""
    return np.tile(np.float32([1, 0, margins[1], 0, 1, margins[0], 0, 0]), (count, 1))


def test_a_crop_is_the_part_of_the_image_at_its_corner() -> None:
    pixels, class_ids = cut((3, 5), (4, 6), 20, 30)
    np.testing.assert_array_equal(pixels, numbered(20, 30)[0][3:7, 5:11])
    assert not class_ids.any()


@pytest.mark.parametrize("corner", [(-2, -3), (17, 28), (-2, 28), (17, -3), (-30, 0)])
def test_what_lies_outside_of_the_image_is_grey_and_ignored(corner: tuple[int, int]) -> None:
    pixels, class_ids = cut(corner, (5, 6), 20, 30)
    rows, columns = np.mgrid[corner[0] : corner[0] + 5, corner[1] : corner[1] + 6]
    inside = (rows >= 0) & (rows < 20) & (columns >= 0) & (columns < 30)
    assert (class_ids[~inside] == IGNORED).all()
    assert (pixels[~inside] == 128).all()
    np.testing.assert_array_equal(pixels[inside][:, :2], np.stack([rows, columns], -1)[inside])


def test_windows_lie_anywhere_inside_of_an_image() -> None:
    rng = np.random.default_rng(0)
    sizes = np.tile([[40, 33]], (4000, 1))
    crops = place_crops(
        np.arange(4000), sizes, rng.random((4000, 7)), still(4000), (32, 32), (36, 40), 0.0
    )
    windows = crops.corners + np.array([2, 4])
    assert set(windows[:, 0].tolist()) == set(range(9))
    assert set(windows[:, 1].tolist()) == {0, 1}
    assert np.isnan(crops.focus).all()


def test_a_small_image_lies_anywhere_inside_of_its_window() -> None:
    rng = np.random.default_rng(0)
    sizes = np.tile([[30, 32]], (1000, 1))
    crops = place_crops(
        np.arange(1000), sizes, rng.random((1000, 7)), still(1000), (32, 32), (32, 32), 0.0
    )
    assert set(crops.corners[:, 0].tolist()) == {0, -1, -2}
    assert set(crops.corners[:, 1].tolist()) == {0}


def test_a_share_of_the_crops_is_around_classes_that_are_rare() -> None:
    rng = np.random.default_rng(0)
    image, mask = numbered(200, 250)
    mask[61, 173] = 1  # one pixel in 50,000
    mask[:10] = IGNORED
    sizes = np.tile([mask.shape], (1000, 1))
    places = rng.random((1000, 7))
    crops = place_crops(np.zeros(1000, int), sizes, places, still(1000), (8, 8), (8, 8), 0.5)
    _, class_ids = crops.cut([image] * 1000, [mask] * 1000)
    assert (class_ids == 1).any(axis=(1, 2)).mean() == pytest.approx(0.25, abs=0.05)


def test_a_focused_window_lies_inside_of_its_image_and_has_the_pixel_anywhere() -> None:
    rng = np.random.default_rng(0)
    image, mask = numbered(60, 90)
    mask[3, 50] = 1
    sizes = np.tile([mask.shape], (500, 1))
    places, warps = rng.random((500, 7)), still(500, (4, 2))
    crops = place_crops(np.zeros(500, int), sizes, places, warps, (32, 40), (40, 44), 1.0)
    pixels, class_ids = crops.cut([image] * 500, [mask] * 500)
    window = class_ids[:, 4:-4, 2:-2]
    assert (window != IGNORED).all()
    found, rows, columns = np.nonzero(window == 1)
    assert len(found) > 200
    assert set(rows.tolist()) == {0, 1, 2, 3}  # so near to the upper border
    assert len(set(columns.tolist())) > 30
    np.testing.assert_array_equal(
        pixels[found, rows + 4, columns + 2][:, :2], [[3, 50]] * len(found)
    )


@pytest.mark.parametrize(
    ("pixel", "share"), [((110, 120), 0.99), ((3, 120), 0.9), ((197, 246), 0.8)]
)
def test_a_focused_pixel_is_there_after_the_augmentation(
    pixel: tuple[int, int], share: float
) -> None:
    """However far the crop is zoomed into, turned and mirrored; and mostly so at a border."""
    rng = np.random.default_rng(0)
    image, mask = numbered(200, 250)
    mask[pixel] = 1
    window, margins = (40, 48), (8, 6)
    augmentation = Augmentation(True, (0.3, 1.0), 0.1, 10.0)
    warps = augmentation.draw_warps(rng, 500, window, window)
    warps[:, (5, 2)] += margins
    shape = (40 + 16, 48 + 12)
    sizes = np.tile([mask.shape], (500, 1))
    places = rng.random((500, 7))
    crops = place_crops(np.zeros(500, int), sizes, places, warps, window, shape, 1.0)
    _, class_ids = crops.cut([image] * 500, [mask] * 500)
    focused = np.floor(2 * places[:, 3]) == 1  # the others are around the other class
    shown = []
    for warp, mask_of_crop in zip(warps[focused], class_ids[focused], strict=True):
        [row], [column] = np.nonzero(mask_of_crop == 1)
        turn = np.array([[warp[4], warp[3]], [warp[1], warp[0]]])
        place = np.linalg.solve(turn, np.array([row, column]) - warp[[5, 2]])
        shown.append(((place > -2) & (place < np.array(window) + 1)).all())
    assert len(shown) > 200
    assert np.mean(shown) > share


def test_an_image_without_labels_is_cropped_all_the_same() -> None:
    image, mask = numbered(20, 20)
    mask[:] = IGNORED
    crops = Crops(
        np.array([0]), np.array([[1, 2]]), np.full((1, 4), 0.5), np.array([[0, 0, 4, 4]]), (4, 4)
    )
    pixels, _ = crops.cut([image], [mask])
    np.testing.assert_array_equal(pixels[0], image[1:5, 2:6])


def test_an_epoch_sees_as_many_pixels_as_there_are() -> None:
    sizes = np.array([[100, 200], [10, 10], [64, 64], [1000, 1000]])
    assert count_crops(sizes, (64, 64)).tolist() == [5, 1, 1, 244]


class OneImage:
    """Examples of which there is one."""

    def __init__(self, height: int, width: int) -> None:
        self.image, self.mask = numbered(height, width)

    def read(self, batches):
        for crops in batches:
            count = len(crops.examples)
            yield crops.cut([self.image] * count, [self.mask] * count)


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (17, 24), (16, 33)])
def test_windows_cover_each_pixel_once(size: tuple[int, int]) -> None:
    examples = OneImage(*size)
    windows = WindowedExamples(examples, np.array([size]), (8, 8))
    seen = np.zeros(size, int)
    for pixels, class_ids in windows.read(np.arange(len(windows))[:, None]):
        labelled = class_ids[0] != IGNORED
        rows, columns = pixels[0][labelled][:, :2].T
        np.add.at(seen, (rows, columns), 1)
    assert (seen == 1).all()


def test_pixels_without_a_label_count_in_one_window_too() -> None:
    windows = WindowedExamples(OneImage(13, 17), np.array([(13, 17)]), (8, 8))
    counts = windows.counts(np.arange(len(windows)))
    assert counts.shape == (6, 8, 8)
    assert counts.sum() == 13 * 17


def test_windows_lie_inside_of_an_image_that_is_larger() -> None:
    """As segmenting lays them: no window has a bar of grey."""
    windows = WindowedExamples(OneImage(13, 17), np.array([(13, 17)]), (8, 8))
    for pixels, _ in windows.read(np.arange(len(windows))[:, None]):
        assert (pixels[..., 0] < 13).all()
        assert (pixels[..., 1] < 17).all()


def test_samples_lie_at_most_two_pixels_of_the_cached_image_apart() -> None:
    assert TrainConfig(zoom=(1.0, 1.0)).samples == 1  # cached at the resolution of the network
    assert TrainConfig().samples == 2
    assert TrainConfig(zoom=(0.5, 1.5)).samples == 2
    assert TrainConfig(zoom=(1.0, 4.0)).samples == 4
    assert TrainConfig(zoom=(1.0, 4.0), detail=1.0).samples == 2


@pytest.mark.parametrize(
    ("settings", "crop"),
    [
        ({"zoom": (1.0, 1.0), "rotation": 0.0, "stretch": 0.0}, (64, 128)),
        ({"zoom": (0.5, 2.0), "rotation": 0.0, "stretch": 0.0}, (128, 256)),
        ({"zoom": (1.0, 1.0), "rotation": 90.0, "stretch": 0.0}, (144, 144)),
    ],
)
def test_a_crop_has_what_the_augmentation_takes_around_its_window(
    settings: dict, crop: tuple[int, int]
) -> None:
    config = TrainConfig(fit="tile", image_size=(64, 128), **settings)
    assert config.training_frame.shape == crop
    assert config.margins == ((crop[0] - 64) // 2, (crop[1] - 128) // 2)
    assert config.samples == (2 if settings["zoom"] == (0.5, 2.0) else 1)

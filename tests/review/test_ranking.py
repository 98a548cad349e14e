"""The order in which images are looked at for a review."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.pixels.labels import Labels
from segray.review.ranking import Ranking

PIXELS = 1000


def rank(
    expected: list[float], of_classes: npt.NDArray[np.float64], count: int, files: int = 1
) -> list[int]:
    """Rank images, each with equal shares of the classes that it has.

    Args:
        expected: the expected IoU of each image; its id is its index.
        of_classes: float64 [N, C], that of each class; NaN where the class is not there.
        count: the number of images that are wanted.
        files: the number of files that the rows are in.

    Returns:
        The ids in the order of the ranking.
    """
    there = ~np.isnan(of_classes)
    pixels = PIXELS * there // there.sum(axis=1, keepdims=True)
    return rank_rows(expected, of_classes, pixels, count, files)


def rank_rows(
    expected: list[float],
    of_classes: npt.NDArray[np.float64],
    pixels: npt.NDArray[np.int64],
    count: int,
    files: int = 1,
) -> list[int]:
    labels = Labels.parse([f"c{i}={i}" for i in range(of_classes.shape[1])])
    # The expected IoU of a class whose expected pixels are those of its mask.
    confidences = 2 * of_classes / (1 + of_classes)
    columns = {"id": np.arange(len(expected)), "expected_iou": np.array(expected)}
    for i, name in enumerate(labels.names):
        columns[f"pixels_{name}"] = pixels[:, i]
        columns[f"expected_pixels_{name}"] = pixels[:, i].astype(np.float64)
        columns[f"confidence_{name}"] = confidences[:, i]
        columns[f"expected_iou_{name}"] = of_classes[:, i]
    table = pa.table(columns)
    ranking = Ranking(labels, [0.1] * len(labels), count)
    for file, rows in enumerate(np.array_split(np.arange(len(table)), files)):
        ranking.add(file, table.take(rows))
    ranked = ranking.finish()
    parts = np.array_split(np.arange(len(table)), files)
    assert all(id in parts[file] for id, file in zip(ranked.ids, ranked.files, strict=True))
    assert ranked.expected.tolist() == np.array(expected)[ranked.ids].tolist()
    return ranked.ids.tolist()


def test_the_worst_come_first_and_each_once() -> None:
    expected = np.random.default_rng(0).random(50)
    order = rank(expected.tolist(), np.column_stack([expected, expected]), 10)
    assert order == np.argsort(expected).tolist()


def test_a_class_that_is_rare_and_better_than_the_others_is_among_the_first() -> None:
    expected = [0.1 + i / 1000 for i in range(98)] + [0.8, 0.9]
    of_classes = [[value, np.nan] for value in expected[:98]] + [[0.8, 0.7], [0.9, 0.6]]
    order = rank(expected, np.array(of_classes), 20)
    assert len(order) == len(set(order)) == 100
    assert set(order[:20]) >= {98, 99, 0, 1, 2, 3}
    assert order.index(99) < order.index(98)


def test_a_class_goes_on_after_its_worst_images() -> None:
    """They may be frames of one video, of which all but one are left out."""
    random = np.random.default_rng(0)
    expected = [0.8 + value / 10 for value in random.random(300)]
    expected += [value / 2 for value in random.random(1000)]
    of_classes = [[value, value / 2] for value in expected[:300]]
    of_classes += [[value, np.nan] for value in expected[300:]]
    order = rank(expected, np.array(of_classes), 20)
    assert len({image for image in order if image < 300}) >= 100


def test_a_class_that_is_nowhere_changes_nothing() -> None:
    expected = [0.3, 0.2, 0.1]
    assert rank(expected, np.array([[value, np.nan] for value in expected]), 2) == [2, 1, 0]


def test_images_with_much_of_a_class_come_before_those_with_a_few_stray_pixels_of_it() -> None:
    random = np.random.default_rng(0)
    expected = (0.8 + random.random(400) / 10).tolist()
    strays = [[value, 0.0] for value in expected[:300]]
    much = [[value, value / 2] for value in expected[300:]]
    pixels = np.array([[PIXELS - 2, 2]] * 300 + [[PIXELS // 2, PIXELS // 2]] * 100)
    order = rank_rows(expected, np.array(strays + much), pixels, 40)
    assert len({image for image in order[:40] if image >= 300}) >= 10


def test_a_class_of_small_things_that_is_overlooked_has_its_turn() -> None:
    """The mask has no pixel of it, and less than a thousandth of the image is expected to be it."""
    labels = Labels.parse(["background=0", "crack=1"])
    overlooked = np.arange(100) == 42
    table = pa.table(
        {
            "id": np.arange(100),
            "expected_iou": np.where(overlooked, 0.9, np.linspace(0.5, 0.8, 100)),
            "pixels_background": np.full(100, 10_000),
            "pixels_crack": np.zeros(100, dtype=np.int64),
            "confidence_background": np.full(100, 0.999),
            "confidence_crack": np.full(100, np.nan),
            "expected_pixels_background": np.where(overlooked, 9991.0, 10_000.0),
            "expected_pixels_crack": np.where(overlooked, 9.0, 0.0),
            "expected_iou_background": np.full(100, 0.999),
            "expected_iou_crack": np.full(100, np.nan),
        }
    )
    ranking = Ranking(labels, [0.999, 0.001], 4)
    ranking.add(0, table)
    assert 42 in ranking.finish().ids[:4]


def test_with_many_classes_every_second_image_is_among_the_worst_of_all() -> None:
    random = np.random.default_rng(0)
    expected = random.random(3000)
    order = rank(expected.tolist(), random.random((3000, 255)), 200)
    worst = set(np.argsort(expected)[:120].tolist())
    assert len(worst & set(order[:200])) >= 90


def test_the_files_that_rows_are_in_make_no_difference() -> None:
    random = np.random.default_rng(0)
    of_classes = random.random((2000, 4))
    expected = of_classes.mean(axis=1).tolist()
    assert rank(expected, of_classes, 5, files=7) == rank(expected, of_classes, 5)

"""The order in which images are looked at for a review."""

import numpy as np

from segray.review.ranking import Rated, rank_images


def rated(expected: list[float], of_classes: list[list[float]]) -> Rated:
    count = len(expected)
    return Rated(
        np.arange(count),
        np.zeros(count, dtype=np.intp),
        np.array(expected, dtype=np.float32),
        np.array(of_classes, dtype=np.float32),
    )


def test_the_worst_come_first_and_each_once() -> None:
    expected = np.random.default_rng(0).random(50).tolist()
    order = rank_images(rated(expected, [[value, value] for value in expected]), 10)
    assert order.tolist() == np.argsort(np.array(expected, dtype=np.float32)).tolist()


def test_a_class_that_is_rare_and_better_than_the_others_is_among_the_first() -> None:
    expected = [0.1 + i / 1000 for i in range(98)] + [0.8, 0.9]
    of_classes = [[value, np.nan] for value in expected[:98]] + [[0.8, 0.7], [0.9, 0.6]]
    order = rank_images(rated(expected, of_classes), 20).tolist()
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
    order = rank_images(rated(expected, of_classes), 20).tolist()
    assert len({image for image in order if image < 300}) >= 100


def test_a_class_that_is_nowhere_changes_nothing() -> None:
    expected = [0.3, 0.2, 0.1]
    order = rank_images(rated(expected, [[value, np.nan] for value in expected]), 2)
    assert order.tolist() == [2, 1, 0]


def test_with_many_classes_every_second_image_is_among_the_worst_of_all() -> None:
    random = np.random.default_rng(0)
    expected = random.random(3000)
    order = rank_images(rated(expected.tolist(), random.random((3000, 255)).tolist()), 200)
    worst = set(np.argsort(expected)[:120].tolist())
    assert len(worst & set(order[:200].tolist())) >= 90

"""Drift: what is said of images that look like those of the training, and of others."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from scipy import stats

from segray.bulk.drift import Drift, DriftCounter, explain_by_chance, measure_distance
from segray.model.reference import BINS, count_features, features_of
from segray.pixels.labels import Labels


def bin_normal(rng: np.random.Generator, count: int, mean: float = 0.5) -> npt.NDArray[np.int64]:
    values = np.clip(rng.normal(mean, 0.1, count), 0, 0.999)
    return np.bincount((values * BINS).astype(int), minlength=BINS)


def make_images(rng: np.random.Generator, count: int, labels: Labels, **moved: float) -> pa.Table:
    """Rows of results; the value of a column that is named is moved by so much."""
    names = ("brightness", "contrast", "saturation", "warmth", "sharpness", "upper_detail")
    shares = rng.dirichlet(np.ones(len(labels)), count)
    columns = {name: rng.normal(0.25, 0.05, count) for name in (*names, "expected_iou")}
    columns |= {f"fraction_{name}": shares[:, i] for i, name in enumerate(labels.names)}
    for name, by in moved.items():
        columns[name] = columns[name] + by
    sizes = {"width": rng.integers(300, 500, count), "height": rng.integers(300, 500, count)}
    return pa.table({**columns, **sizes})


def make_reference(table: pa.Table, labels: Labels) -> dict[str, npt.NDArray[np.int64]]:
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return count_features(features_of(labels), columns)


def compare(first: pa.Table, second: pa.Table, labels: Labels) -> Drift:
    counter = DriftCounter(make_reference(first, labels), labels)
    counter.add(second)
    drift = counter.finish()
    assert drift is not None
    return drift


def test_equal_distributions_have_no_distance_and_separate_ones_the_largest() -> None:
    first, second = np.zeros((2, BINS), dtype=np.int64)
    first[3:20], second[20:25] = 7, 100
    assert measure_distance(first, 5 * first) == pytest.approx(0, abs=1e-9)
    assert measure_distance(first, second) == pytest.approx(1)
    assert measure_distance(second, first) == pytest.approx(1)


def test_the_distance_of_a_small_shift_is_half_of_it() -> None:
    rng = np.random.default_rng(0)
    first, second = (bin_normal(rng, 200_000, mean) for mean in (0.5, 0.53))
    assert measure_distance(first, second) == pytest.approx(0.3 / 2, abs=0.02)


def test_it_is_the_criterion_of_scipy() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.4, 0.05, 400), rng.normal(0.42, 0.06, 400)
    counts = [
        np.bincount((values * BINS).astype(int), minlength=BINS) for values in (first, second)
    ]
    statistic = stats.cramervonmises_2samp(first, second).statistic
    assert 400 * 400 / 800 * measure_distance(*counts) ** 2 / 3 == pytest.approx(
        statistic, rel=0.05
    )


@pytest.mark.parametrize("level", [0.1, 0.01])
def test_samples_of_one_distribution_exceed_chance_as_seldom_as_is_said(level: float) -> None:
    rng = np.random.default_rng(2)
    sizes, repeats = (70, 110), 2000
    most = explain_by_chance(*sizes, level)
    beyond = sum(
        measure_distance(*(bin_normal(rng, size) for size in sizes)) > most for _ in range(repeats)
    )
    assert beyond / repeats == pytest.approx(level, rel=0.5)


def test_images_like_those_of_the_training_have_not_moved(labels: Labels) -> None:
    rng = np.random.default_rng(3)
    for sizes in [(40, 5), (60, 400), (2000, 50_000)]:
        drift = compare(*(make_images(rng, size, labels) for size in sizes), labels)
        assert drift.moved == []
        assert drift.distance == 0


def test_the_feature_that_moved_is_the_first(labels: Labels) -> None:
    rng = np.random.default_rng(4)
    dark = make_images(rng, 300, labels, brightness=-0.1)
    drift = compare(make_images(rng, 200, labels), dark, labels)
    assert [moved.feature.name for moved in drift.moved] == ["brightness"]
    assert drift.features[0] is drift.moved[0]
    assert drift.moved[0].means == pytest.approx((0.25, 0.15), abs=0.02)
    assert drift.moved[0].distance > 0.5
    assert drift.distance == drift.moved[0].distance


def test_a_small_change_of_very_many_images_is_no_drift(labels: Labels) -> None:
    rng = np.random.default_rng(5)
    first, second = (make_images(rng, 50_000, labels, contrast=by) for by in (0, 0.01))
    drift = compare(first, second, labels)
    contrast = next(d for d in drift.features if d.feature.name == "contrast")
    assert contrast.distance > contrast.chance
    assert not contrast.moved


def test_a_few_stray_pixels_of_a_class_are_no_drift_and_objects_of_it_are(labels: Labels) -> None:
    rng = np.random.default_rng(7)
    name = f"fraction_{labels.names[0]}"
    first, second = (make_images(rng, 500, labels) for _ in range(2))
    column = first.column_names.index(name)
    without = first.set_column(column, name, pa.array(np.zeros(500)))
    for most, moved in ((0.0009, []), (0.1, [name])):
        shares = pa.array(rng.random(500) * most)
        drift = compare(without, second.set_column(column, name, shares), labels)
        assert [feature.feature.name for feature in drift.moved] == moved


def test_the_order_and_the_files_of_the_rows_do_not_matter(labels: Labels) -> None:
    rng = np.random.default_rng(6)
    reference, images = (make_images(rng, 100, labels) for _ in range(2))
    whole = DriftCounter(make_reference(reference, labels), labels)
    unlike = whole.add(images)
    parts = DriftCounter(make_reference(reference, labels), labels)
    for start in (60, 0, 30):
        stop = {60: 100, 0: 30, 30: 60}[start]
        assert parts.add(images.slice(start, stop - start)).tolist() == unlike[start:stop].tolist()
    found = whole.finish(), parts.finish()
    first, second = (drift and drift.to_json() for drift in found)
    assert first == second is not None


def test_the_oddest_image_is_the_most_unlike(labels: Labels) -> None:
    rng = np.random.default_rng(7)
    reference = make_images(rng, 500, labels)
    odd = make_images(rng, 1, labels, brightness=0.7, saturation=0.7, sharpness=1.5)
    counter = DriftCounter(make_reference(reference, labels), labels)
    unlike = counter.add(pa.concat_tables([make_images(rng, 200, labels), odd]))
    assert unlike.argmax() == 200


def test_without_images_there_is_no_drift(labels: Labels) -> None:
    counter = DriftCounter(
        make_reference(make_images(np.random.default_rng(8), 9, labels), labels), labels
    )
    assert counter.finish() is None


def test_a_pixel_more_is_no_drift(labels: Labels) -> None:
    """Square images lie at the edge of two bins of proportions, and 1024x1024 of sizes."""
    rng = np.random.default_rng(9)
    images = make_images(rng, 400, labels)

    def of_size(width: int, height: int) -> pa.Table:
        sizes = {"width": np.full(400, width), "height": np.full(400, height)}
        return pa.table({**{name: images[name] for name in images.column_names}, **sizes})

    for one, other in [((512, 512), (512, 513)), ((1024, 1024), (1023, 1024))]:
        assert compare(of_size(*one), of_size(*other), labels).moved == []
    wide = compare(of_size(512, 512), of_size(1024, 512), labels)
    assert {moved.feature.name for moved in wide.moved} == {"aspect", "size"}


def test_three_images_are_too_few_to_tell(labels: Labels) -> None:
    rng = np.random.default_rng(10)
    reference = make_images(rng, 400, labels)
    few = compare(reference, make_images(rng, 3, labels), labels)
    assert not few.can_tell
    assert few.distance is None
    assert compare(reference, make_images(rng, 30, labels), labels).can_tell

"""Labels: what --classes and --ignore-values accept, and what they make of a mask."""

import json
import time

import numpy as np
import pytest

from segray.errors import InputError
from segray.pixels.labels import IGNORED, Labels


def test_words_become_classes_in_their_order() -> None:
    labels = Labels.parse(["pet=1", "background=2", "border=3"], ["255", "0"])
    assert labels.names == ("pet", "background", "border")
    assert labels.values == (1, 2, 3)
    assert labels.ignored == (255, 0)
    assert not labels.coloured
    assert len(labels) == 3


def test_colours_become_classes_in_their_order() -> None:
    labels = Labels.parse(["road=#804080", "sky=#87CEeb", "car=#00008e"], ["#000000", "#ffffff"])
    assert labels.names == ("road", "sky", "car")
    assert labels.coloured
    assert labels.palette == ((128, 64, 128), (135, 206, 235), (0, 0, 142))
    mask = np.array([[0x804080, 0x87CEEB, 0x00008E, 0x000000, 0xFFFFFF]], dtype=np.uint32)
    assert labels.to_class_ids(mask).tolist() == [[0, 1, 2, IGNORED, IGNORED]]


@pytest.mark.parametrize("name", ["a", "Tree", "tree_2", "left-leaf", "été", "猫", "x" * 63])
def test_a_name_that_sql_bears_is_accepted(name: str) -> None:
    assert Labels.parse([f"{name}=0", "rest=65535"]).names == (name, "rest")


@pytest.mark.parametrize(
    ("words", "ignored", "named"),
    [
        ([], [], "at least two"),
        (["pet=1"], [], "at least two"),
        ([f"class_{i}={i}" for i in range(256)], [], "at most 255"),
        (["pet", "rest=0"], [], "'pet'"),
        (["pet=", "rest=0"], [], "'pet='"),
        (["pet=one", "rest=0"], [], "'pet=one'"),
        (["pet=1.5", "rest=0"], [], "'pet=1.5'"),
        (["pet=-1", "rest=0"], [], "'pet=-1'"),
        (["pet=٣", "rest=0"], [], "'pet=٣'"),
        (["=1", "rest=0"], [], "''"),
        (["1st=1", "rest=0"], [], "'1st'"),
        (["a.pet=1", "rest=0"], [], "'a.pet'"),
        (["pet;drop=1", "rest=0"], [], "'pet;drop'"),
        (["pet\n=1", "rest=0"], [], "pet"),
        (["x" * 64 + "=1", "rest=0"], [], "63 characters"),
        (["pet=1", "pet=2"], [], "'pet' stands twice"),
        (["pet=1", "Pet=2"], [], "'pet' stands twice"),
        (["pet=1", "rest=1"], [], "1 stands twice"),
        (["pet=1", "rest=2"], [2], "2 stands twice"),
        (["pet=1", "rest=2"], [7, 7], "7 stands twice"),
        (["pet=65536", "rest=2"], [], "65536"),
        (["pet=1", "rest=2"], [65536], "65536"),
        (["pet=1", "rest=2"], [-1], "-1"),
        (["pet=1", "rest=2"], ["all"], "'all'"),
        (["pet=1", "rest=2"], ["'#000000'"], "'#000000'"),
        (["pet=" + "9" * 5000, "rest=2"], [], "not name=value"),
        (["pet=#80408", "rest=#000000"], [], "such as pet=#804080"),
        (["pet=#8040800", "rest=#000000"], [], "such as pet=#804080"),
        (["pet=#80408g", "rest=#000000"], [], "such as pet=#804080"),
        (["pet=804080", "rest=2"], [], "804080 is not in 0 to 65535"),
        (["pet=#804080", "rest=2"], [], "the number 2 and the colour #804080: give all"),
        (["pet=#804080", "rest=#000000"], ["255"], "the number 255 and the colour #804080"),
        (["pet=1", "rest=2"], ["#000000"], "the number 1 and the colour #000000: give all"),
        (["pet=#ABCDEF", "rest=#abcdef"], [], "#abcdef stands twice"),
        (["pet=#804080", "rest=#000000"], ["#000000"], "#000000 stands twice"),
    ],
)
def test_what_cannot_be_classes_is_refused_by_name(
    words: list[str], ignored: list[str | int], named: str
) -> None:
    with pytest.raises(InputError) as refusal:
        Labels.parse(words, ignored)
    assert named in str(refusal.value)
    assert "--classes" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_json_and_words_bring_the_same_labels_back() -> None:
    for labels in (
        Labels.parse(["pet=1", "été=65535"], [255]),
        Labels.parse(["pet=#000001", "été=#ffffff"], ["#0000ff"]),
    ):
        assert Labels.parse(*labels.words) == labels
        assert Labels.from_json(json.loads(json.dumps(labels.to_json()))) == labels


def test_json_from_before_there_were_colours_is_read() -> None:
    document = {"names": ["pet", "rest"], "values": [1, 2], "ignored": []}
    assert Labels.from_json(document) == Labels.parse(["pet=1", "rest=2"])


@pytest.mark.parametrize("classes", [2, 7, 8, 100, 255])
def test_every_class_has_a_colour_of_its_own(classes: int) -> None:
    palette = Labels.parse([f"class_{i}={i}" for i in range(classes)]).palette
    assert len(set(palette)) == classes
    assert all(0 <= channel <= 255 for colour in palette for channel in colour)


def test_a_class_keeps_its_colour_when_classes_are_added() -> None:
    few = Labels.parse([f"class_{i}={i}" for i in range(3)]).palette
    many = Labels.parse([f"class_{i}={i}" for i in range(20)]).palette
    assert many[:3] == few


def test_values_become_class_ids_and_ignored_values_become_ignored() -> None:
    labels = Labels.parse(["pet=1", "background=2", "far=200"], [0, 255])
    mask = np.array([[1, 2, 200], [0, 255, 1]], dtype=np.uint8)
    ids = labels.to_class_ids(mask)
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[0, 1, 2], [IGNORED, IGNORED, 0]]


def test_sixteen_bit_values_are_told_apart() -> None:
    labels = Labels.parse(["low=1", "middle=256", "high=65535"], [257])
    mask = np.array([[1, 256, 65535, 257]], dtype=np.uint16)
    assert labels.to_class_ids(mask).tolist() == [[0, 1, 2, IGNORED]]


def test_the_last_of_255_classes_is_not_taken_for_ignored() -> None:
    labels = Labels.parse([f"class_{i}={i}" for i in range(255)], [255])
    ids = labels.to_class_ids(np.array([[254, 255]], dtype=np.uint8))
    assert ids.tolist() == [[254, IGNORED]]


@pytest.mark.parametrize("turned", [False, True])
def test_each_of_255_colours_is_found_wherever_it_stands(turned: bool) -> None:
    rng = np.random.default_rng(0)
    colours = rng.choice(1 << 24, 257, replace=False)
    words = [f"class_{i}=#{colour:06x}" for i, colour in enumerate(colours[:255])]
    labels = Labels.parse(words, [f"#{colour:06x}" for colour in colours[255:]])
    expected = rng.integers(0, 257, (40, 30)).repeat(rng.integers(1, 9, 30), axis=1)
    mask = colours[expected].astype(np.uint32)
    if turned:  # as a mask with an EXIF orientation comes: not one row after the other in memory
        mask, expected = mask.T, expected.T
    assert np.array_equal(labels.to_class_ids(mask), np.minimum(expected, IGNORED))


def test_colours_of_a_large_mask_are_found_in_a_fraction_of_a_second() -> None:
    labels = Labels.parse([f"class_{i}=#{i * 65793:06x}" for i in range(255)])
    blocks = np.random.default_rng(0).choice(np.array(labels.values, dtype=np.uint32), (30, 40))
    mask = blocks.repeat(100, axis=0).repeat(100, axis=1)
    started = time.process_time()
    ids = labels.to_class_ids(mask)
    # 0.02 s on two cores; a pass over the mask for each class takes over 1 s.
    assert time.process_time() - started < 0.5
    assert ids.shape == (3000, 4000)


def test_an_unclaimed_value_is_refused_with_its_value_and_its_pixels() -> None:
    labels = Labels.parse(["pet=1", "background=2"], [255])
    mask = np.array([[1, 2, 255], [38, 38, 38]], dtype=np.uint8)
    with pytest.raises(InputError, match="has the value 38 in 3 pixels, which") as error:
        labels.to_class_ids(mask)
    assert "pet=1 background=2" in str(error.value)
    # The whole flag, ready to paste: what was ignored before still is.
    assert str(error.value).endswith("train with a class for it, or with --ignore-values 255 38")
    assert "\n" not in str(error.value)


def test_an_unclaimed_colour_is_refused_with_its_colour_and_its_pixels() -> None:
    labels = Labels.parse(["road=#804080", "sky=#87ceeb"], ["#000000"])
    mask = np.array([[0x804080, 0x87CEEB, 0], [0x0102FF, 0x0102FF, 0x0102FF]], dtype=np.uint32)
    with pytest.raises(InputError) as error:
        labels.to_class_ids(mask)
    assert "has the colour #0102ff in 3 pixels, which none" in str(error.value)
    assert "road=#804080 sky=#87ceeb" in str(error.value)
    # Ready to paste: without the quotes a shell would take it for a comment.
    assert "class for it, or with --ignore-values '#000000' '#0102ff'" in str(error.value)


def test_of_many_unclaimed_values_the_most_frequent_are_named() -> None:
    labels = Labels.parse(["pet=1", "background=2"])
    mask = np.array([[7, 1, 9, 9], [9, 2, 8, 9]], dtype=np.uint8)
    with pytest.raises(InputError) as few:
        labels.to_class_ids(mask)
    assert "has the values 9 in 4 pixels, 7 in 1 pixel and 8 in 1 pixel, which" in str(few.value)
    assert str(few.value).endswith("train with a class for each, or with --ignore-values 9 7 8")

    with pytest.raises(InputError) as many:
        labels.to_class_ids(np.array([[100, 100, *range(10, 19)]], dtype=np.uint8))
    assert "100 in 2 pixels" in str(many.value)
    assert "13 in 1 pixel and 5 more, which" in str(many.value)
    assert "class for each, or with --ignore-others" in str(many.value)


def test_a_mask_that_has_no_other_value_is_not_to_be_ignored() -> None:
    labels = Labels.parse(["pet=1", "background=2"])
    with pytest.raises(InputError) as error:
        labels.to_class_ids(np.array([[0, 255, 0]], dtype=np.uint8))
    assert str(error.value).endswith("train with a class for each")


@pytest.mark.parametrize("coloured", [False, True])
def test_other_values_are_ignored_where_that_is_asked_for(coloured: bool) -> None:
    words = ["pet=#000001", "background=#000002"] if coloured else ["pet=1", "background=2"]
    labels = Labels.parse(words, others_ignored=True)
    mask = np.array([[1, 2, 3], [0, 255, 65535]], dtype=np.uint32 if coloured else np.uint16)
    expected = [[0, 1, IGNORED], [IGNORED, IGNORED, IGNORED]]
    np.testing.assert_array_equal(labels.to_class_ids(mask), expected)
    assert Labels.from_json(labels.to_json()) == labels


def test_class_names_may_have_blanks_between_words() -> None:
    labels = Labels.parse(["traffic light=6", "road=7"])
    assert labels.names == ("traffic light", "road")
    for name in (" light", "light ", "traffic\tlight", "traffic\nlight"):
        with pytest.raises(InputError, match="class name"):
            Labels.parse([f"{name}=6", "road=7"])


def test_the_refusal_stays_short_with_many_classes() -> None:
    labels = Labels.parse([f"class_number_{i}={i}" for i in range(255)])
    with pytest.raises(InputError) as error:
        labels.to_class_ids(np.full((2, 2), 1000, dtype=np.uint16))
    assert "the value 1000 in 4 pixels" in str(error.value)
    assert len(str(error.value)) < 300
    with pytest.raises(InputError) as error:
        Labels.parse(["a=1", "b=2"], range(10, 300)).to_class_ids(np.full((2, 2), 5, np.uint8))
    assert len(str(error.value)) < 300

from pathlib import Path

import numpy as np
import pytest

from segray.errors import InputError
from segray.pixels.decoding import read_picture
from segray.pixels.labels import IGNORED, Labels
from segray.storage.pairs import find_pairs
from segray.storage.uri import read_bytes
from segray.training.examples import decode_pairs
from tests.support import encode, write_shapes

LABELS = Labels.parse(["box=10", "ground=20"])
pytestmark = pytest.mark.usefixtures("ray_session")


def silent(done: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shapes(str(tmp_path), 40)
    return tmp_path


def pairs_of(folder: Path):
    return find_pairs(str(folder / "images"), str(folder / "masks")).pairs


def test_examples_are_the_decoded_pairs_in_their_order(folder: Path) -> None:
    pairs = pairs_of(folder)
    progress: list[int] = []
    examples, fingerprint = decode_pairs(pairs, LABELS, 32, progress.append)
    images, masks = examples.fetch().batch(np.array([39, 0, 7]))
    for image, mask, index in zip(images, masks, [39, 0, 7], strict=True):
        expected = read_picture(read_bytes(pairs[index].image), 32).pixels
        np.testing.assert_array_equal(image, expected)
        assert set(np.unique(mask)) == {0, 1}
        assert image[mask == 0].mean() > image[mask == 1].mean() + 60  # the box is bright
    assert progress[-1] == len(examples) == 40
    assert decode_pairs(pairs, LABELS, 32, silent)[1] == fingerprint


def test_fingerprint_follows_the_content(folder: Path) -> None:
    pairs = pairs_of(folder)
    before = decode_pairs(pairs, LABELS, 32, silent)[1]
    mask = Path(pairs[3].mask)
    pixels = np.full((50, 50), 20, dtype=np.uint8)
    mask.write_bytes(encode(pixels, "PNG"))
    Path(pairs[3].image).write_bytes(encode(np.stack([pixels] * 3, -1), "JPEG"))
    assert decode_pairs(pairs, LABELS, 32, silent)[1] != before


def test_selected_examples_keep_their_identity(folder: Path) -> None:
    examples, _ = decode_pairs(pairs_of(folder), LABELS, 32, silent)
    chosen = examples.select([5, 35]).fetch()
    everything = examples.fetch()
    for new, old in ((0, 5), (1, 35)):
        for one, other in zip(
            chosen.batch(np.array([new])), everything.batch(np.array([old])), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_ignored_values_are_marked(folder: Path) -> None:
    labels = Labels.parse(["box=10", "other=30"], ignored=[20])
    examples, _ = decode_pairs(pairs_of(folder), labels, 32, silent)
    _, masks = examples.fetch().batch(np.arange(40))
    assert set(np.unique(masks)) == {0, IGNORED}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda i, m: m.write_bytes(encode(np.full((9, 7), 20, np.uint8), "PNG")), r"7 x 9 pixels"),
        (lambda i, m: i.write_bytes(b"no image"), r"shape_5\.jpg: not an image"),
        (lambda i, m: m.write_bytes(b""), r"shape_5\.png: the file is empty"),
        (lambda i, m: i.write_bytes(i.read_bytes()[:-400]), r"shape_5\.jpg: .*truncated"),
    ],
    ids=["size", "text", "empty", "truncated"],
)
def test_a_bad_file_is_named(folder: Path, spoil, message: str) -> None:
    pairs = pairs_of(folder)
    spoil(folder / "images" / "shape_5.jpg", folder / "masks" / "shape_5.png")
    with pytest.raises(InputError, match=message) as caught:
        decode_pairs(pairs, LABELS, 32, silent)
    assert "\n" not in str(caught.value)


def test_an_unclaimed_value_is_named_with_its_file_and_how_many_more(folder: Path) -> None:
    labels = Labels.parse(["box=10", "ground=21"])
    with pytest.raises(InputError, match=r"shape_0\.png: has the value 20 .*39 more"):
        decode_pairs(pairs_of(folder), labels, 32, silent)

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segray.data.pairs import Pair, find_pairs
from segray.errors import InputError
from segray.pixels.decoding import read_picture
from segray.pixels.framing import Frame
from segray.pixels.labels import IGNORED, Labels
from segray.storage.files import read_bytes
from segray.training.data.examples import Arrays, Decoded, Examples, decode_pairs
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


def decode(pairs: list[Pair], labels: Labels = LABELS, keep: bool = True) -> Decoded:
    return decode_pairs(pairs, labels, Frame(32, 32), keep, silent)


def read(examples: Examples, *indices: int) -> Arrays:
    [arrays] = examples.open().read([np.array(indices)])
    return arrays


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "streamed"])
def test_examples_are_the_decoded_pairs_in_their_order(folder: Path, keep: bool) -> None:
    pairs = pairs_of(folder)
    progress: list[int] = []
    decoded = decode_pairs(pairs, LABELS, Frame(32, 32), keep, progress.append)
    images, masks = read(decoded.examples, 39, 0, 7)
    for image, mask, index in zip(images, masks, [39, 0, 7], strict=True):
        expected = read_picture(read_bytes(pairs[index].image), 32).pixels
        np.testing.assert_array_equal(image, expected)
        assert set(np.unique(mask)) == {0, 1}
        assert image[mask == 0].mean() > image[mask == 1].mean() + 60  # the box is bright
    assert sum(progress) == len(decoded.examples) == len(decoded.examples.open()) == 40
    assert decode(pairs).fingerprint == decoded.fingerprint


def test_kept_examples_need_no_file_again(folder: Path) -> None:
    examples = decode(pairs_of(folder)).examples
    before = read(examples, *range(40))
    shutil.rmtree(folder / "images")
    for one, other in zip(before, read(examples, *range(40)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_decoded_anew_from_other_files_are_refused(folder: Path) -> None:
    pairs = pairs_of(folder)
    whole = decode(pairs).examples
    (folder / "images" / "shape_7.jpg").unlink()
    less = decode(pairs).examples
    for before, now in ((whole, less), (less, whole)):
        with pytest.raises(InputError, match="not the same pairs can be read"):
            replace(before, blocks=now.blocks).open()


def test_a_streamed_file_that_is_gone_is_named(folder: Path) -> None:
    examples = decode(pairs_of(folder), keep=False).examples
    (folder / "images" / "shape_7.jpg").unlink()
    with pytest.raises(InputError, match=r"shape_7\.jpg.* when the run was started"):
        read(examples, *range(40))


def test_streamed_batches_come_in_their_order(folder: Path) -> None:
    pairs = pairs_of(folder)
    kept, streamed = (decode(pairs, keep=keep).examples.open() for keep in (True, False))
    batches = np.random.default_rng(0).permutation(40).reshape(10, 4)
    for one, other in zip(kept.read(batches), streamed.read(batches), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_fingerprint_follows_the_content(folder: Path) -> None:
    pairs = pairs_of(folder)
    before = decode(pairs).fingerprint
    mask = Path(pairs[3].mask)
    pixels = np.full((50, 50), 20, dtype=np.uint8)
    mask.write_bytes(encode(pixels, "PNG"))
    Path(pairs[3].image).write_bytes(encode(np.stack([pixels] * 3, -1), "JPEG"))
    assert decode(pairs).fingerprint != before


def test_ignored_values_are_marked_and_not_counted(folder: Path) -> None:
    decoded = decode(pairs_of(folder), Labels.parse(["box=10", "other=30"], ["20"]))
    _, masks = read(decoded.examples, *range(40))
    assert set(np.unique(masks)) == {0, IGNORED}
    boxes = [np.count_nonzero(mask == 0) for mask in masks]
    np.testing.assert_array_equal(decoded.class_pixels, [[box, 0] for box in boxes])


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
def test_a_bad_file_is_left_out_and_named(folder: Path, spoil, message: str) -> None:
    pairs = pairs_of(folder)
    whole = decode(pairs)
    spoil(folder / "images" / "shape_5.jpg", folder / "masks" / "shape_5.png")
    decoded = decode(pairs)
    [skipped] = decoded.skipped
    assert re.search(message, skipped.reason)
    assert "\n" not in skipped.reason
    assert str(skipped.image).endswith("shape_5.jpg")
    others = [i for i, pair in enumerate(pairs) if pair.key != "shape_5"]
    assert decoded.examples.pairs == [pairs[i] for i in others]
    for one, other in zip(
        read(decoded.examples, *range(39)), read(whole.examples, *others), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_an_unclaimed_value_is_named_with_its_file(folder: Path) -> None:
    decoded = decode(pairs_of(folder), Labels.parse(["box=10", "ground=21"]))
    assert len(decoded.skipped) == 40
    assert re.search(r"shape_0\.png: has the value 20 ", decoded.skipped[0].reason)

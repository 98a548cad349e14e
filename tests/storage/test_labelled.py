"""Labelled pictures: what a pair of files becomes, or which file of it is to blame."""

from pathlib import Path

import numpy as np
import pytest

from segray.errors import InputError
from segray.pixels.labels import IGNORED, Labels
from segray.storage.files import write_bytes
from segray.storage.labelled import read_pair
from segray.storage.pairs import Pair
from tests.support import draw_picture, encode

HEIGHT, WIDTH = 20, 30
COLOURED = Labels.parse(["road=#804080", "sky=#87ceeb"], ["#000000"])


def colour_mask() -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3]: sky above road, and a black column on the left."""
    mask = np.full((HEIGHT, WIDTH, 3), (128, 64, 128), dtype=np.uint8)
    mask[:8] = (135, 206, 235)
    mask[:, 0] = 0
    return mask


def write_pair(folder: Path, mask: bytes) -> Pair:
    pair = Pair("a", str(folder / "a.jpg"), str(folder / "a.mask"))
    write_bytes(pair.image, encode(draw_picture(HEIGHT, WIDTH), "JPEG"))
    write_bytes(pair.mask, mask)
    return pair


def test_a_colour_mask_becomes_class_ids(tmp_path: Path) -> None:
    labelled = read_pair(write_pair(tmp_path, encode(colour_mask(), "PNG")), COLOURED, 32)
    assert labelled.picture.pixels.shape == (32, 32, 3)
    assert labelled.class_ids.shape == (HEIGHT, WIDTH)
    assert (labelled.class_ids[:, 0] == IGNORED).all()
    assert (labelled.class_ids[:8, 1:] == 1).all()
    assert (labelled.class_ids[8:, 1:] == 0).all()


def test_a_changed_mask_changes_the_digest(tmp_path: Path) -> None:
    mask = colour_mask()
    before = read_pair(write_pair(tmp_path, encode(mask, "PNG")), COLOURED, 32).digest
    mask[-1, -1] = 0
    after = read_pair(write_pair(tmp_path, encode(mask, "PNG")), COLOURED, 32).digest
    assert before != after


@pytest.mark.parametrize(
    ("mask", "classes", "reason"),
    [
        (encode(colour_mask()[1:], "PNG"), COLOURED, r"is 30 x 19 pixels.* is 30 x 20"),
        (encode(colour_mask(), "JPEG"), COLOURED, "is a JPEG"),
        (
            encode(colour_mask(), "PNG"),
            Labels.parse(["road=#804080", "tree=#008000"], ["#000000"]),
            "has the colour #87ceeb in 232 pixels",
        ),
        (encode(colour_mask(), "PNG"), Labels.parse(["road=1", "sky=2"]), "name=#rrggbb"),
        (b"", COLOURED, "the file is empty"),
    ],
    ids=["another size", "JPEG", "unclaimed", "numbers", "empty"],
)
def test_a_mask_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, mask: bytes, classes: Labels, reason: str
) -> None:
    pair = write_pair(tmp_path, mask)
    with pytest.raises(InputError, match=f"^{pair.mask}: .*{reason}") as refusal:
        read_pair(pair, classes, 32)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named_once(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, encode(colour_mask(), "PNG"))
    Path(pair.image).unlink()
    with pytest.raises(InputError, match=f"^cannot read {pair.image}: no such file") as refusal:
        read_pair(pair, COLOURED, 32)
    assert str(refusal.value).count(pair.image) == 1

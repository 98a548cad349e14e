"""Labelled pictures: what a pair of files becomes, or which file of it is to blame."""

from pathlib import Path

import numpy as np
import pytest

from segray.data.labelled import Reading, read_pair
from segray.data.pairs import Pair
from segray.errors import InputError
from segray.pixels.labels import IGNORED, Labels
from segray.pixels.orientation import MaskOrientation, Says, settle_orientation
from segray.storage.files import write_bytes
from tests.corpus import STORED, corpus, oriented
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


def test_a_tiff_of_unknown_pixels_is_named_with_what_they_are(tmp_path: Path) -> None:
    files = corpus()
    pair = write_pair(tmp_path, encode(colour_mask(), "PNG"))
    image = Path(pair.image).read_bytes()
    for name, reason in {
        "tiff/bands5.tiff": "5 bands of 8 bits: save it with",
        "tiff/int16.tiff": "signed 16-bit pixels: save it with",
        "tiff/float_rgb.tiff": "floating-point pixels: save it with",
        "mode/f.tiff": "floating-point pixels: save it with",
    }.items():
        for uri, other, content in (
            (pair.image, pair.mask, encode(colour_mask(), "PNG")),
            (pair.mask, pair.image, image),
        ):
            write_bytes(uri, files[name].content)
            write_bytes(other, content)
            for labels in (NUMBERS, COLOURED):
                with pytest.raises(InputError, match=f"^{uri}: .*{reason}"):
                    read_pair(pair, labels, 32)


def test_a_missing_file_is_named_once(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, encode(colour_mask(), "PNG"))
    Path(pair.image).unlink()
    with pytest.raises(InputError, match=f"^cannot read {pair.image}: no such file") as refusal:
        read_pair(pair, COLOURED, 32)
    assert str(refusal.value).count(pair.image) == 1


NUMBERS = Labels.parse(["a=1", "b=2", "c=3"])
TURNED = (5, 6, 7, 8)


def draw_numbers(height: int, width: int) -> np.ndarray:
    """uint8 [height, width] of 1, 2 and 3, which no turn brings onto itself."""
    mask = np.full((height, width), 1, dtype=np.uint8)
    mask[: height // 3] = 2
    mask[:, : width // 4] = 3
    return mask


def write_turned(
    folder: Path,
    orientation: int,
    mask: np.ndarray,
    kind: str = "PNG",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    own: int = 1,
) -> Pair:
    """An image stored with an orientation, beside a mask as it is given."""
    pair = Pair("a", str(folder / "a.img"), str(folder / "a.mask"))
    image = np.ascontiguousarray(STORED[orientation](draw_picture(*size)))
    write_bytes(pair.image, encode(image, kind, exif=oriented(orientation)))
    exif = {} if own == 1 else {"exif": oriented(own)}
    write_bytes(pair.mask, encode(np.ascontiguousarray(mask), "PNG", **exif))
    return pair


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("coloured", [False, True])
def test_a_mask_of_stored_pixels_is_turned_and_an_upright_one_is_not(
    tmp_path: Path, orientation: int, kind: str, coloured: bool
) -> None:
    labels, mask = (COLOURED, colour_mask()) if coloured else (NUMBERS, draw_numbers(HEIGHT, WIDTH))
    expected = read_pair(write_turned(tmp_path, 1, mask), labels, 32).class_ids
    stored = write_turned(tmp_path, orientation, STORED[orientation](mask), kind)
    turned = read_pair(stored, labels, 32, Reading("stored"))
    assert np.array_equal(turned.class_ids, expected)
    assert turned.turned == (orientation != 1)
    drawn_upright = write_turned(tmp_path, orientation, mask, kind)
    upright = read_pair(drawn_upright, labels, 32, Reading("upright"))
    assert np.array_equal(upright.class_ids, expected)
    assert not upright.turned


@pytest.mark.parametrize("orientation", STORED)
def test_a_shape_says_how_its_mask_was_drawn(tmp_path: Path, orientation: int) -> None:
    mask = draw_numbers(HEIGHT, WIDTH)
    stored = read_pair(write_turned(tmp_path, orientation, STORED[orientation](mask)), NUMBERS, 32)
    upright = read_pair(write_turned(tmp_path, orientation, mask), NUMBERS, 32)
    if orientation in TURNED:
        assert (stored.says, stored.turned) == ("stored", True)
        assert (upright.says, upright.turned) == ("upright", False)
        assert np.array_equal(stored.class_ids, upright.class_ids)
    else:
        word = "nothing" if orientation == 1 else "undecided"
        assert (stored.says, upright.says) == (word, word)


def test_a_square_leaves_it_open(tmp_path: Path) -> None:
    pair = write_turned(tmp_path, 6, draw_numbers(20, 20), size=(20, 20))
    assert read_pair(pair, NUMBERS, 32).says == "undecided"


@pytest.mark.parametrize("asked", ["auto", "stored", "upright"])
def test_a_mask_with_an_orientation_of_its_own_is_turned_by_that(
    tmp_path: Path, asked: MaskOrientation
) -> None:
    mask = draw_numbers(HEIGHT, WIDTH)
    pair = write_turned(tmp_path, 6, STORED[8](mask), own=8)
    labelled = read_pair(pair, NUMBERS, 32, Reading(asked))
    assert labelled.class_ids.tolist() == (mask - 1).tolist()
    assert (labelled.says, labelled.turned) == ("nothing", False)


@pytest.mark.parametrize("own", [1, 8])
@pytest.mark.parametrize("asked", ["auto", "stored", "upright"])
def test_a_refusal_for_the_size_names_exif_and_both_sizes(
    tmp_path: Path, asked: MaskOrientation, own: int
) -> None:
    mask = draw_numbers(HEIGHT + 1, WIDTH)
    pair = write_turned(tmp_path, 6, mask, own=own)
    with pytest.raises(InputError, match=f"^{pair.mask}: is ") as refusal:
        read_pair(pair, NUMBERS, 32, Reading(asked))
    message = str(refusal.value)
    assert f"is {WIDTH} x {HEIGHT} by its EXIF orientation 6" in message
    assert f"stored as {HEIGHT} x {WIDTH}" in message
    if own == 8:
        assert f"is {HEIGHT + 1} x {WIDTH} pixels by its EXIF orientation 8" in message


@pytest.mark.parametrize("asked", ["stored", "upright"])
def test_a_shape_against_the_flag_is_refused_by_its_name(
    tmp_path: Path, asked: MaskOrientation
) -> None:
    mask = draw_numbers(HEIGHT, WIDTH)
    pair = write_turned(tmp_path, 6, mask if asked == "stored" else STORED[6](mask))
    with pytest.raises(InputError, match=rf"EXIF.* --mask-orientation {asked}: ") as refusal:
        read_pair(pair, NUMBERS, 32, Reading(asked))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("said", "settled"),
    [
        ([], "auto"),
        (["nothing"], "auto"),
        (["stored", "upright", "nothing"], "auto"),
        (["undecided", "stored", "nothing"], "stored"),
        (["undecided", "upright", "upright"], "upright"),
    ],
)
def test_what_some_pairs_say_holds_for_all(said: list[Says], settled: str) -> None:
    assert settle_orientation(said) == settled


@pytest.mark.parametrize("others", [[], ["nothing"], ["stored", "upright"]])
def test_where_nothing_says_it_the_user_is_asked(others: list[Says]) -> None:
    with pytest.raises(InputError, match=r"^2 image\(s\).* EXIF .*--mask-orientation") as refusal:
        settle_orientation(["undecided", *others, "undecided"])
    assert "\n" not in str(refusal.value)

from pathlib import Path

import pytest

from segray.errors import InputError
from segray.storage.pairs import Pair, find_pairs, split_pairs
from segray.storage.skipped import Skipped


def touch(folder: Path, *names: str) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return str(folder)


def test_pairs_share_a_stem_at_any_depth_whatever_the_suffix(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "a.jpg", "deep/er/b.webp")
    masks = touch(tmp_path / "m", "b.png", "x/a.tiff")
    found = find_pairs(images, masks)
    assert [(Path(p.image).name, Path(p.mask).name) for p in found.pairs] == [
        ("a.jpg", "a.tiff"),
        ("b.webp", "b.png"),
    ]


def test_a_file_without_a_partner_is_listed_with_the_reason(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "a.jpg", "z.jpg", "lonely.png")
    masks = touch(tmp_path / "m", "a.png", "x/c.png")
    assert find_pairs(images, masks).skipped == [
        Skipped(f"{images}/lonely.png", None, f"no mask below {masks} is named lonely"),
        Skipped(f"{images}/z.jpg", None, f"no mask below {masks} is named z"),
        Skipped(None, f"{masks}/x/c.png", f"no image below {images} is named c"),
    ]


def test_a_file_without_a_partner_goes_by_its_folders_where_others_do(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "cats/1.jpg", "dogs/1.jpg")
    masks = touch(tmp_path / "m", "cats/1.png")
    found = find_pairs(images, masks)
    assert [pair.key for pair in found.pairs] == ["cats/1"]
    assert found.skipped == [
        Skipped(f"{images}/dogs/1.jpg", None, f"no mask below {masks} is named dogs/1")
    ]


def test_repeated_stems_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "cats/1.jpg", "dogs/1.jpg")
    masks = touch(tmp_path / "m", "cats/1.png", "dogs/1.png")
    pairs = find_pairs(images, masks).pairs
    assert [p.key for p in pairs] == ["cats/1", "dogs/1"]
    assert all(Path(p.image).parent.name == Path(p.mask).parent.name for p in pairs)


def test_sidecar_files_are_no_images(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "a.jpg", "a.json", "a.xml")
    masks = touch(tmp_path / "m", "a.png", "a.txt")
    found = find_pairs(images, masks)
    assert [Path(p.image).name for p in found.pairs] == ["a.jpg"]
    assert found.skipped == []


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "a.jpg", "a.png")
    masks = touch(tmp_path / "m", "a.png")
    with pytest.raises(InputError, match=r"a\.jpg and .*a\.png share the name a"):
        find_pairs(images, masks)


@pytest.mark.parametrize(
    ("image_names", "mask_names", "message"),
    [
        ([], ["a.png"], "no image found"),
        (["a.json"], ["a.png"], "no image found.* of the 1 files"),
        (["a.jpg"], [], "no mask found"),
        (["a.jpg"], ["b.png"], "no image matches a mask.* a and .* b"),
    ],
)
def test_nothing_to_pair(
    tmp_path: Path, image_names: list[str], mask_names: list[str], message: str
) -> None:
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    images, masks = touch(tmp_path / "i", *image_names), touch(tmp_path / "m", *mask_names)
    with pytest.raises(InputError, match=message):
        find_pairs(images, masks)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        find_pairs(str(tmp_path / "nowhere"), str(tmp_path))


def numbered(count: int) -> list[Pair]:
    return [Pair(str(i), f"{i}.jpg", f"{i}.png") for i in range(count)]


def test_split_is_complete_disjoint_and_repeatable() -> None:
    pairs = numbered(50)
    train, validation = split_pairs(pairs, 0.1, seed=3)
    assert len(validation) == 5
    assert sorted(train + validation, key=lambda p: int(p.key)) == pairs
    assert split_pairs(pairs, 0.1, seed=3) == (train, validation)
    assert split_pairs(pairs, 0.1, seed=4) != (train, validation)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_each_part_keeps_one_pair(fraction: float) -> None:
    train, validation = split_pairs(numbered(2), fraction, seed=0)
    assert (len(train), len(validation)) == (1, 1)


def test_one_pair_cannot_be_split() -> None:
    with pytest.raises(InputError, match="at least two"):
        split_pairs(numbered(1), 0.5, seed=0)

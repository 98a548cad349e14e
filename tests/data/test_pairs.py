from pathlib import Path

import pytest

from segray.data.pairs import Pair, find_masks, find_pairs, split_pairs
from segray.data.skipped import Skipped
from segray.errors import InputError


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


@pytest.mark.parametrize(
    ("image_names", "mask_names", "suffixes"),
    [
        (["caf\u00e9.jpg"], ["cafe\u0301.png"], {}),
        # As jobs/export.py names masks; the second where two images differ in their suffix alone.
        (["a.jpg", "deep/b.tif"], ["a.jpg.png", "deep/b.tif.png"], {}),
        (["a.jpg", "a.png"], ["a.jpg.png", "a.png.png"], {}),
        (["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png"], {"mask_suffix": "_mask"}),
        (["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png"], {"mask_suffix": "_mask.png"}),
        (
            ["aachen/a_0_leftImg8bit.png", "ulm/u_0_leftImg8bit.png"],
            [
                f"{place}_gtFine_{kind}"
                for place in ("aachen/a_0", "ulm/u_0")
                for kind in ("color.png", "instanceIds.png", "labelIds.png", "polygons.json")
            ],
            {"image_suffix": "_leftImg8bit", "mask_suffix": "_gtFine_labelIds"},
        ),
    ],
    ids=["Unicode", "export", "export, one stem", "suffix", "suffix and format", "Cityscapes"],
)
def test_names_that_differ_as_they_do_in_public_sets_are_paired(
    tmp_path: Path, image_names: list[str], mask_names: list[str], suffixes: dict[str, str]
) -> None:
    images, masks = touch(tmp_path / "i", *image_names), touch(tmp_path / "m", *mask_names)
    found = find_pairs(images, masks, **suffixes)
    assert [pair.image for pair in found.pairs] == [f"{images}/{name}" for name in image_names]
    wanted = [name for name in mask_names if "color" not in name and "inst" not in name]
    assert [p.mask for p in found.pairs] == [f"{masks}/{n}" for n in wanted if ".json" not in n]
    assert found.skipped == []


@pytest.mark.parametrize(
    ("image_names", "mask_names", "named"),
    [
        (["e\u0301.jpg", "\u00e9.jpg", "b.jpg"], ["\u00e9.jpg.png", "b.jpg.png"], "\u00e9"),
        (["a.jpg", "b.jpg"], ["a.jpg.png", "a.jpg.tif", "b.png"], "a.jpg"),
    ],
    ids=["images", "masks"],
)
def test_no_file_is_left_out_because_another_has_its_name(
    tmp_path: Path, image_names: list[str], mask_names: list[str], named: str
) -> None:
    images, masks = touch(tmp_path / "i", *image_names), touch(tmp_path / "m", *mask_names)
    with pytest.raises(InputError, match=f"share the name {named}"):
        find_pairs(images, masks)


def test_one_folder_holds_both_where_a_suffix_tells_them_apart(tmp_path: Path) -> None:
    folder = touch(tmp_path, "x.tif", "x_masks.tif", "y.tif", "y_masks.tif", "alone.tif")
    found = find_pairs(folder, folder, mask_suffix="_masks")
    assert [(Path(p.image).name, Path(p.mask).name) for p in found.pairs] == [
        ("x.tif", "x_masks.tif"),
        ("y.tif", "y_masks.tif"),
    ]
    assert [Path(item.image or "").name for item in found.skipped] == ["alone.tif"]


def test_one_folder_for_images_and_masks_is_refused(tmp_path: Path) -> None:
    """Otherwise each file would be its own mask."""
    folder = touch(tmp_path / "both", "x.png", "x_masks.png")
    (tmp_path / "link").symlink_to(folder)
    for other in (folder, f"{folder}/", f"{folder}/../both", str(tmp_path / "link")):
        with pytest.raises(InputError, match="--mask-suffix"):
            find_pairs(folder, other)


@pytest.mark.parametrize("masks_within", [True, False])
def test_a_folder_within_the_other_is_of_its_own_kind(tmp_path: Path, masks_within: bool) -> None:
    outer = touch(tmp_path, "a.png", "b.png", "inner/a.png", "inner/b.png")
    folders = (outer, f"{outer}/inner") if masks_within else (f"{outer}/inner", outer)
    found = find_pairs(*folders)
    assert [(p.image, p.mask) for p in found.pairs] == [
        (f"{folders[0]}/{name}", f"{folders[1]}/{name}") for name in ("a.png", "b.png")
    ]
    assert found.skipped == []


@pytest.mark.parametrize(
    ("mask_name", "flag"),
    [
        ("cat_mask.png", "--mask-suffix _mask"),
        ("cow.png", "--mask-suffix"),
        ("cow.png", "--pairs"),
    ],
)
def test_names_that_do_not_match_get_the_flag_that_helps(
    tmp_path: Path, mask_name: str, flag: str
) -> None:
    images, masks = touch(tmp_path / "i", "cat.jpg"), touch(tmp_path / "m", mask_name)
    with pytest.raises(InputError, match=flag):
        find_pairs(images, masks)


@pytest.mark.parametrize(
    ("image_names", "mask_names"),
    [
        (["Cat_1.jpg", "mastiff_1.jpg"], ["mask_Cat_1.png", "mask_mastiff_1.png"]),
        (["img_cat.jpg", "img_dog.jpg"], ["cat.png", "ibex.png"]),
        (["img_1.jpg", "img_2.jpg"], ["mask_1.png", "mask_2.png"]),
        (["x/1.jpg", "y/1.jpg"], ["x/gt_1.png", "y/gt_1.png"]),
    ],
    ids=["masks", "images", "both", "in folders"],
)
def test_names_that_differ_in_front_are_a_matter_for_a_table(
    tmp_path: Path, image_names: list[str], mask_names: list[str]
) -> None:
    images, masks = touch(tmp_path / "i", *image_names), touch(tmp_path / "m", *mask_names)
    with pytest.raises(InputError, match="--pairs") as refusal:
        find_pairs(images, masks)
    assert "-suffix" not in str(refusal.value)


@pytest.mark.parametrize("suffixes", [{"mask_suffix": "_mask"}, {"image_suffix": "_img"}])
def test_a_suffix_that_no_name_has_is_named(tmp_path: Path, suffixes: dict[str, str]) -> None:
    images, masks = touch(tmp_path / "i", "a.jpg"), touch(tmp_path / "m", "a.png")
    [(name, suffix)] = suffixes.items()
    with pytest.raises(InputError, match=f"{suffix}.*--{name.replace('_', '-')}"):
        find_pairs(images, masks, **suffixes)


def test_a_file_of_annotations_is_no_folder_of_masks(tmp_path: Path) -> None:
    images, masks = touch(tmp_path / "i", "a.jpg"), touch(tmp_path / "m", "instances.json")
    with pytest.raises(InputError, match=r"instances\.json.*folder of masks.*docs/data\.md"):
        find_pairs(images, f"{masks}/instances.json")


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


@pytest.mark.parametrize(
    ("names", "masks", "pattern"),
    [
        (
            ["a.jpg", "a_mask.png", "b.jpg", "b_mask.png"],
            ["a_mask.png", "b_mask.png"],
            "*_mask.png",
        ),
        (["x/a.JPG", "x/a.png", "y/a.png"], ["x/a.png"], "*.png"),
        (["a.jpeg", "a-Labels.tif"], ["a-Labels.tif"], "*-Labels.tif"),
        (["mask.jpg", "gt_a.png", "a_mask.png", "b.jpg", "c.png"], [], ""),
    ],
)
def test_files_named_like_masks_of_others_are_found(
    names: list[str], masks: list[str], pattern: str
) -> None:
    assert find_masks([f"s3://b/{name}" for name in names]) == (
        [f"s3://b/{name}" for name in masks],
        pattern,
    )

"""What is checked before Ray starts: each mistake is one line that names the flag or the file."""

import dataclasses
from pathlib import Path

import pytest

from segray.errors import InputError
from segray.evaluation.config import EvaluateConfig
from segray.evaluation.plan import prepare_evaluation
from segray.pixels.framing import Fit
from tests.support import write_shapes


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"model": ""}, ["--model is empty"]),
        ({"images": "i"}, ["--images and --masks go together"]),
        ({"masks": "m"}, ["--images and --masks go together"]),
        ({"images": "i", "masks": "m", "pairs": "p"}, ["--pairs", "leave out --images"]),
        ({"split": "test"}, ["--split", "--pairs"]),
        ({"pairs": "p", "mask_suffix": "_mask"}, ["--mask-suffix", "--masks"]),
        ({"pairs": "p", "split": "tset"}, ["--split tset", "train, validation, test"]),
        ({"workers": -1}, ["--workers must not be below 0"]),
        ({"batch_size": 0}, ["--batch-size must be at least 1"]),
        ({"max_error_rate": 1.5}, ["--max-error-rate"]),
    ],
)
def test_flags_that_do_not_go_are_refused(flags: dict, parts: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        EvaluateConfig(**flags)
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)


@pytest.fixture
def folder(tmp_path: Path, bundle_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a bundle, labelled shapes, and what cannot be used."""
    monkeypatch.chdir(tmp_path)
    write_shapes("data", 3)
    Path("bundle").symlink_to(bundle_uri)
    Path("empty").mkdir()
    Path("other").mkdir()
    Path("other", "notes.txt").write_text("mine")
    Path("pairs.csv").write_text(
        "image,mask,split\ndata/images/shape_0.jpg,data/masks/shape_0.png,validation\n"
    )
    Path("parts.csv").write_text(
        "image,mask,split\ndata/images/shape_0.jpg,data/masks/shape_0.png,validation\n"
        "data/images/shape_1.jpg,data/masks/shape_1.png,train\n"
    )
    return tmp_path


DATA = {"images": "data/images", "masks": "data/masks"}


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({}, ["output/train/model", "model.json is missing", "jobs/train.py"]),
        ({"model": "bundle", **DATA, "images": "nowhere"}, ["nowhere", "no such"]),
        ({"model": "bundle", **DATA, "masks": "empty"}, ["no mask found", "empty"]),
        ({"model": "bundle", **DATA, "masks": "data/images"}, ["data/images", "--mask-suffix"]),
        ({"model": "bundle", **DATA, "output": "other"}, ["no evaluation", "notes.txt"]),
        ({"model": "bundle", **DATA, "output": "data/images/out"}, ["data/images/out", "--output"]),
        ({"model": "bundle", **DATA, "output": "data/masks/out"}, ["data/masks/out", "--output"]),
        ({"model": "bundle", "pairs": "lost.csv"}, ["lost.csv", "no such file"]),
        ({"model": "bundle", "pairs": "pairs.csv", "split": "test"}, ["--split validation"]),
        ({"model": "bundle", "pairs": "parts.csv"}, ["--split train or --split validation"]),
    ],
)
def test_what_cannot_be_used_is_named(folder: Path, flags: dict, parts: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        prepare_evaluation(EvaluateConfig(**flags))
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)
    assert not Path("output").exists()


def test_pairs_come_from_two_folders_or_from_a_split_of_a_manifest(folder: Path) -> None:
    found = prepare_evaluation(EvaluateConfig(model="bundle", **DATA)).pairing
    assert [pair.key for pair in found.pairs] == ["shape_0", "shape_1", "shape_2"]
    config = EvaluateConfig(model="bundle", pairs="pairs.csv", split="val")
    [pair] = prepare_evaluation(config).pairing.pairs
    assert pair.image == str(folder / "data" / "images" / "shape_0.jpg")
    assert pair.mask == str(folder / "data" / "masks" / "shape_0.png")


def test_a_suffix_tells_masks_from_images_in_one_folder(folder: Path) -> None:
    for mask in Path("data", "masks").iterdir():
        mask.rename(Path("data", "images", f"{mask.stem}_mask.png"))
    both = {"images": "data/images", "masks": "data/images", "mask_suffix": "_mask"}
    found = prepare_evaluation(EvaluateConfig(model="bundle", **both)).pairing
    assert [(Path(p.image).name, Path(p.mask).name) for p in found.pairs] == [
        (f"shape_{n}.jpg", f"shape_{n}_mask.png") for n in range(3)
    ]
    assert found.skipped == []


@pytest.mark.parametrize("split", ["", "validation", "test"])
def test_a_manifest_of_one_part_is_scored_as_a_whole(
    folder: Path, split: str, lines: list[str]
) -> None:
    line = ",".join(["data/images/shape_0.jpg", "data/masks/shape_0.png", split]).rstrip(",")
    Path("one.csv").write_text(f"image,mask{',split' if split else ''}\n{line}\n")
    config = EvaluateConfig(model="bundle", pairs="one.csv")
    preparation = prepare_evaluation(config)
    [pair] = preparation.pairing.pairs
    assert pair.key == "data/images/shape_0"
    assert preparation.config.split == (split or "train")
    assert lines == ["one.csv has no test split: scoring all of its pairs"] * (split != "test")


@pytest.mark.parametrize(
    ("settings", "fit", "small"),
    [
        ({}, "squash", True),
        ({}, "tile", False),
        ({"use_gpu": True}, "squash", False),
    ],
)
def test_few_images_are_scored_without_ray_unless_they_are_large_or_a_gpu_is_wanted(
    folder: Path, settings: dict[str, bool], fit: Fit, small: bool
) -> None:
    config = EvaluateConfig(model="bundle", **DATA, **settings)
    preparation = prepare_evaluation(config)
    bundle = dataclasses.replace(preparation.bundle, fit=fit)
    assert dataclasses.replace(preparation, bundle=bundle).is_small == small


def test_files_without_a_partner_are_listed_and_too_many_are_refused(
    folder: Path, lines: list[str]
) -> None:
    Path("data", "masks", "shape_1.png").unlink()
    config = EvaluateConfig(model="bundle", **DATA, output="out", max_error_rate=0.4)
    assert len(prepare_evaluation(config).pairing.pairs) == 2
    assert "1 file(s) have no partner" in lines[0]
    assert "shape_1.jpg" in Path("out", "skipped.jsonl").read_text()
    with pytest.raises(InputError, match=r"^1 file.* beside 2 pair.*--max-error-rate"):
        prepare_evaluation(EvaluateConfig(model="bundle", **DATA, output="out"))

"""What docs/data.md says to do with files of unknown origin is right."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segray.data.pairs import find_pairs
from segray.data.pairs_table import read_manifest
from segray.pixels.labels import Labels
from tests.corpus import packed, png

TEXT = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
SECTION = TEXT.partition("## 2.")[2].partition("## 3.")[0]
LAYOUTS = re.findall(r"^\| (`[^|]*/.*) \| (.*) \|$", SECTION, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


[TABLE] = blocks("csv")
[LOOK, SPLIT] = blocks("python")
[DRAW] = blocks("py")


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_there_are_six_layouts() -> None:
    assert len(LAYOUTS) == 6


@pytest.mark.parametrize(("files", "flags"), LAYOUTS)
def test_each_layout_is_paired_with_the_flags_beside_it(
    files: str, flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = re.findall(r"`([^`]*)`", files)
    make(tmp_path, *names)
    given = re.findall(r"`(--[^`]*)`", flags) or ["--images photos --masks masks"]
    words = shlex.split(given[0])
    values = dict(zip(words[::2], words[1::2], strict=True))
    found = find_pairs(
        values["--images"],
        values["--masks"],
        values.get("--image-suffix", ""),
        values.get("--mask-suffix", ""),
    )
    pairs = {(str(Path(p.image).relative_to(tmp_path)), p.mask) for p in found.pairs}
    half = len(names) // 2
    assert pairs == {
        (image, str(tmp_path / mask))
        for image, mask in zip(names[:half], names[half:], strict=True)
    }
    assert found.skipped == []


def test_the_table_is_one_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(TABLE)
    parts = read_manifest(str(tmp_path / "pairs.csv"))
    assert {split: len(pairs) for split, pairs in parts.items() if pairs} == {"train": 1, "test": 1}


def test_annotations_become_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The masks have the values that the line printed names as --classes."""
    box = {"image_id": 7, "iscrowd": 0, "category_id": 6, "id": 1, "bbox": [2, 1, 4, 3], "area": 12}
    document: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "street/a.jpg", "width": 10, "height": 8}],
        "categories": [{"id": 6, "name": "traffic light"}],
        "annotations": [{**box, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    exec(DRAW, {})
    words = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    assert words[0] == "--classes"
    labels = Labels.parse(words[1:])
    with Image.open("masks/a.png") as mask:
        ids = labels.to_class_ids(np.asarray(mask))
    expected = np.zeros((8, 10), np.uint8)
    expected[1:4, 2:6] = 1
    np.testing.assert_array_equal(ids, expected)


def test_the_names_of_a_split_become_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_1\n2007_2\n")
    (lists / "val.txt").write_text("2007_3\n")
    monkeypatch.chdir(tmp_path)
    exec(SPLIT, {})
    parts = read_manifest("pairs.csv")
    assert [Path(pair.image).name for pair in parts["train"]] == ["2007_1.jpg", "2007_2.jpg"]
    assert [Path(pair.mask).name for pair in parts["validation"]] == ["2007_3.png"]


@pytest.mark.parametrize(
    ("pixels", "printed"),
    [
        (np.array([[1, 2, 2]], np.uint8), "L (3, 1)\n{1: 1, 2: 2}\n"),
        (np.array([[[128, 64, 128]] * 2], np.uint8), "RGB (2, 1)\n{'#804080': 2}\n"),
    ],
)
def test_the_look_at_a_mask_prints_its_values(
    pixels: np.ndarray,
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "output" / "sample" / "masks" / "animal_0000.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    exec(LOOK, {})
    assert capsys.readouterr().out == printed


def test_the_look_at_a_mask_of_two_bits_prints_what_training_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pillow would give 0, 85, 170 and 255."""
    path = tmp_path / "output" / "sample" / "masks" / "animal_0000.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(png(*packed(2, (0, 1, 2, 3)), bits=2, colour=0))
    monkeypatch.chdir(tmp_path)
    exec(LOOK, {})
    values = capsys.readouterr().out.splitlines()[-1]
    assert re.findall(r"(\d+):", values) == ["0", "1", "2", "3"]

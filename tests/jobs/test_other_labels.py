"""Another kind of labelled set through the jobs: a street's eleven classes, coded by colours."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.pixels.masks import decode_mask
from segray.storage.tables import read_tables
from tests.jobs.conftest import CallJob

ROOT = Path(__file__).parent.parent.parent

# Name, colour and the share of the pixels that is aimed at, the largest first; the first four are
# bands across the whole picture, the others squares upon them.
CLASSES = (
    ("building", 0x800000, 0.52),
    ("road", 0x804080, 0.24),
    ("tree", 0x808000, 0.14),
    ("sky", 0x808080, 0.10),
    ("car", 0x400080, 0.05),
    ("pavement", 0x3C28DE, 0.04),
    ("fence", 0x404080, 0.025),
    ("pedestrian", 0x404000, 0.015),
    ("bicyclist", 0x0080C0, 0.01),
    ("sign", 0xC08080, 0.006),
    ("pole", 0xC0C080, 0.002),
)
NAMES = tuple(name for name, _, _ in CLASSES)
COLOURS = tuple(colour for _, colour, _ in CLASSES)
VOID, VOID_SIZE = 0x000000, (40, 30)  # width, height
SIZE, OTHER_SIZE = (480, 360), (300, 212)  # width, height
TRAIN, VALIDATION = 17, 7


def split_colours(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """From 0xRRGGBB [H, W] to uint8 [H, W, 3]."""
    return np.stack([values >> 16, values >> 8 & 255, values & 255], axis=-1).astype(np.uint8)


def draw_street(width: int, height: int, seed: int) -> tuple[Image.Image, Image.Image]:
    """An image and its mask: bands, squares upon them, and a rectangle that nobody labelled."""
    rng = np.random.default_rng(seed)
    bands = np.cumsum([share for _, _, share in CLASSES[:4]])
    band_of_row = np.searchsorted(bands, (np.arange(height) + 0.5) / height)
    mask = np.repeat(np.array(COLOURS, dtype=np.uint32)[band_of_row][:, None], width, axis=1)
    # Each thing has a cell of its own, so that none hides another.
    cells = [(x * width // 4, y * height // 3) for x in range(4) for y in range(3)]
    corners = [cells[i] for i in rng.permutation(len(cells))]
    for (_, colour, share), (x, y) in zip(CLASSES[4:], corners, strict=False):
        side = round((share * width * height) ** 0.5)
        mask[y : y + side, x : x + side] = colour
    (x, y), (void_width, void_height) = corners[-1], VOID_SIZE
    mask[y : y + void_height, x : x + void_width] = VOID
    pixels = split_colours(mask)
    image = np.clip(pixels // 2 + rng.integers(0, 90, (height, width, 1)), 0, 255)
    return Image.fromarray(image.astype(np.uint8)), Image.fromarray(pixels)


def class_ids(mask: Image.Image) -> npt.NDArray[np.intp]:
    """What the test itself takes each pixel of a mask file for; -1 where nothing is labelled."""
    values = np.asarray(mask.convert("RGB")).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1])
    ids = np.full(values.shape, -1)
    for i, colour in enumerate(COLOURS):
        ids[values == colour] = i
    assert ((ids >= 0) | (values == VOID)).all()
    return ids


def count_classes(masks: list[Image.Image]) -> npt.NDArray[np.intp]:
    """How many pixels each class has."""
    return sum(np.bincount(ids[ids >= 0], minlength=11) for ids in map(class_ids, masks))


TRAINING = (
    *("--pairs", "pairs.csv", "--output", "run", "--max-error-rate", "0.1"),
    *("--classes", *(f"{name}=#{colour:06x}" for name, colour, _ in CLASSES)),
    *("--ignore-values", f"#{VOID:06x}"),
    *("--image-size", "64", "--epochs", "2", "--batch-size", "8", "--workers", "0"),
    *("--encoder-weights", "none", "--class-weights", "balanced"),
)


@dataclass(frozen=True)
class Streets:
    """The data set on disk.

    Attributes:
        folder: that everything is in.
        validation: the names of the images to validate on, those that can be read.
    """

    folder: Path
    validation: tuple[str, ...]

    def masks(self) -> list[Image.Image]:
        """The masks of the validation part, at their own sizes."""
        masks = []
        for name in self.validation:
            with Image.open(self.folder / "masks" / f"{name}.png") as mask:
                masks.append(mask.copy())
        return masks

    def run(self, job: str, *flags: str) -> str:
        """What a job prints; nothing on standard error, whatever native libraries log."""
        environment = {**os.environ, "RAY_ADDRESS": "local"}
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
        result = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *flags],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        assert result.stderr == ""
        return result.stdout

    def read(self, *path: str):
        """A JSON file of the folder."""
        return json.loads(self.folder.joinpath(*path).read_text())

    def skipped(self, *path: str) -> dict[str, str]:
        """The reasons of a list of skipped files, by the name of the image."""
        lines = self.folder.joinpath(*path).read_text().splitlines()
        return {Path(item["image"]).name: item["reason"] for item in map(json.loads, lines)}


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Streets:
    """Twenty-four streets, a damaged image and a mask without its image; a model learned them."""
    folder = tmp_path_factory.mktemp("streets")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    names = [f"street_{i:02d}" for i in range(TRAIN + VALIDATION)]
    for i, name in enumerate(names):
        image, mask = draw_street(*(OTHER_SIZE if i == TRAIN else SIZE), seed=i)
        image.save(folder / "images" / f"{name}.png")
        mask.save(folder / "masks" / f"{name}.png")
    (folder / "images" / "damaged.png").write_bytes(
        (folder / "images" / "street_00.png").read_bytes()[:5000]
    )
    for name in ("damaged", "alone"):
        draw_street(*SIZE, seed=99)[1].save(folder / "masks" / f"{name}.png")
    split_of = {name: "train" if i < TRAIN else "validation" for i, name in enumerate(names)}
    with (folder / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "split"])
        for name, split in {**split_of, "damaged": "train", "alone": "validation"}.items():
            table.writerow([f"images/{name}.png", f"masks/{name}.png", split])
    data = Streets(folder, tuple(names[TRAIN:]))
    data.run("train", *TRAINING)
    return data


def test_the_set_is_what_this_is_about(streets: Streets) -> None:
    counts = count_classes(streets.masks())
    shares = counts / counts.sum()
    assert 0.4 < shares.max() < 0.5
    assert 0.001 < shares.min() < 0.003
    assert len({mask.size for mask in streets.masks()}) == 2


def test_the_model_has_the_eleven_classes_with_their_colours(streets: Streets) -> None:
    document = streets.read("run", "model", "model.json")
    assert document["labels"] == {
        "names": list(NAMES),
        "values": list(COLOURS),
        "ignored": [VOID],
        "coloured": True,
        "others_ignored": False,
    }
    records = (streets.folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(records) == 2
    for record in map(json.loads, records):
        assert all(np.isfinite(record[name]) for name in ("loss", "train_loss", "mean_iou"))
        assert all(0 <= record[f"iou_{name}"] <= 1 for name in NAMES)


def test_what_could_not_be_used_is_listed_with_the_reason(streets: Streets) -> None:
    skipped = streets.skipped("run", "skipped.jsonl")
    assert set(skipped) == {"damaged.png", "alone.png"}
    assert "images/damaged.png" in skipped["damaged.png"]
    assert "images/alone.png: no such file" in skipped["alone.png"]


def test_a_finished_run_says_so_and_starts_nothing(streets: Streets, call_job: CallJob) -> None:
    result = call_job("train", *TRAINING, cwd=streets.folder)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    first, *lines = result.stdout.splitlines()
    assert first == "this run is finished already; for another run give another --output"
    assert lines[1].startswith("best of 2 epochs: epoch ")


def check_counts(record: dict, streets: Streets) -> None:
    """Exactly the labelled pixels are counted, at both sizes."""
    masks = streets.masks()
    counts = count_classes(masks)
    own = record["original_resolution"]
    confusion = np.array(own["confusion"])
    ignored = len(masks) * VOID_SIZE[0] * VOID_SIZE[1]
    pixels = sum(mask.width * mask.height for mask in masks)
    assert confusion.sum() == own["pixels"] == counts.sum() == pixels - ignored
    np.testing.assert_array_equal(confusion.sum(axis=1), counts)
    assert [own["classes"][name]["true_pixels"] for name in NAMES] == counts.tolist()
    assert own["accuracy"] == pytest.approx(np.trace(confusion) / counts.sum())

    small = [mask.resize((64, 64), Image.Resampling.NEAREST) for mask in masks]
    small_counts = count_classes(small)
    np.testing.assert_array_equal(
        np.array(record["model_resolution"]["confusion"]).sum(axis=1), small_counts
    )
    assert small_counts.sum() < 64 * 64 * len(masks)


def test_the_scores_at_the_end_of_training_count_the_labelled_pixels(streets: Streets) -> None:
    record = streets.read("run", "evaluation", "metrics.json")
    assert record["counts"] == {"images": 7, "evaluated": 7, "skipped": 0}
    check_counts(record, streets)


def test_an_evaluation_of_its_own_counts_the_same(streets: Streets) -> None:
    streets.run(
        "evaluate",
        *("--model", "run/model", "--pairs", "pairs.csv", "--split", "validation"),
        *("--output", "scores", "--max-error-rate", "0.2"),
    )
    record = streets.read("scores", "metrics.json")
    assert record["counts"] == {"images": 8, "evaluated": 7, "skipped": 1}
    assert set(streets.skipped("scores", "skipped.jsonl")) == {"alone.png"}
    check_counts(record, streets)
    assert (
        record["original_resolution"]
        == streets.read("run", "evaluation", "metrics.json")["original_resolution"]
    )
    [table] = read_tables(str(streets.folder / "scores"), ["width", "height", "labelled_pixels"])
    for row in table.to_pylist():
        assert row["labelled_pixels"] == row["width"] * row["height"] - 30 * 40


def test_predicted_masks_have_the_colours_and_are_what_was_scored(streets: Streets) -> None:
    streets.run(
        "segment",
        *("--model", "run/model", "--images", "images", "--output", "predicted"),
        *("--max-error-rate", "0.1"),
    )
    folder = str(streets.folder / "predicted" / "results")
    tables = read_tables(folder, ["uri", "mask"])
    predicted = {
        Path(row["uri"]).stem: row["mask"]["bytes"] for table in tables for row in table.to_pylist()
    }
    assert len(predicted) == TRAIN + VALIDATION
    confusion = np.zeros((11, 11), dtype=np.int64)
    for name, mask in zip(streets.validation, streets.masks(), strict=True):
        png = streets.folder / "mask.png"
        png.write_bytes(predicted[name])
        with Image.open(png) as image:
            shown = np.asarray(image.convert("RGB"))
        guess, truth = decode_mask(predicted[name]), class_ids(mask)
        np.testing.assert_array_equal(shown, split_colours(np.array(COLOURS)[guess]))
        np.add.at(confusion, (truth[truth >= 0], guess[truth >= 0]), 1)
    own = streets.read("run", "evaluation", "metrics.json")["original_resolution"]
    np.testing.assert_array_equal(own["confusion"], confusion)

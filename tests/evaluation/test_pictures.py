"""Pictures of an evaluation: every number of classes, and images that are gone."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segray.data.pairs import Pair
from segray.evaluation.pictures import Worst, _short, draw_confusion, draw_worst
from segray.evaluation.stages import pack
from segray.model.bundle import open_bundle
from segray.pixels.labels import Labels
from tests.support import draw_picture, encode, square

LABELS = Labels.parse(["pet=1", "background=2", "border=3"])


def many(count: int) -> Labels:
    """Classes with names of all lengths, some in a script that the font does not have."""
    names = [f"été_{i}" if i % 3 else f"猫_{i}_{'x' * 40}" for i in range(count)]
    return Labels(tuple(names), tuple(range(count)))


@pytest.mark.parametrize("count", [2, 24, 25, 255])
def test_a_confusion_matrix_of_any_number_of_classes_is_drawn(count: int) -> None:
    confusion = np.diag(np.full(count, 10**12))
    confusion[0, 0] = 0
    content = draw_confusion(confusion, many(count))
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert max(picture.size) < 5000
    dark = (pixels[..., 2] - pixels[..., 0] > 60) & (pixels[..., 0] < 40)
    # All of the diagonal but its first cell has the darkest blue.
    least = (75 if count <= 24 else 14) ** 2 // 2
    assert dark.sum() > (count - 1) * least


@pytest.mark.parametrize(
    ("pixels", "text"),
    [(0, "0"), (999, "999"), (12345, "12.3k"), (999_500, "1M"), (2**62, "4.61E")],
)
def test_counts_are_written_short(pixels: int, text: str) -> None:
    assert _short(pixels) == text


def as_worst(folder: Path, name: str, prediction: np.ndarray) -> Worst:
    pair = Pair(name, f"{folder}/{name}.png", f"{folder}/{name}_mask.png")
    ious = {"iou_pet": 0.25, "iou_background": None, "iou_border": 0.0}
    return Worst(pair, {"mean_iou": 0.125, "prediction": pack(prediction), **ious})


def test_the_sheet_shows_truth_and_prediction_and_leaves_out_what_is_gone(
    bundle_uri: str, tmp_path: Path
) -> None:
    bundle = dataclasses.replace(
        open_bundle(bundle_uri, []), labels=LABELS, architecture=square(len(LABELS), 32)
    )
    truth = np.full((50, 40), 1, dtype=np.uint8)
    truth[25:] = 3  # the border
    (tmp_path / "a.png").write_bytes(encode(draw_picture(50, 40), "PNG"))
    (tmp_path / "a_mask.png").write_bytes(encode(truth, "PNG"))
    prediction = np.full((32, 32), 1, dtype=np.uint8)
    gone = as_worst(tmp_path, "gone", prediction)
    assert draw_worst([gone], bundle) is None
    content = draw_worst([gone, as_worst(tmp_path, "a", prediction)], bundle)
    assert content
    with Image.open(io.BytesIO(content)) as sheet:
        pixels = np.asarray(sheet)
    # One row of tiles of 128 pixels, which is the least, in the shape of the image.
    assert 128 < pixels.shape[0] < 256
    # 128 by 102 pixels, in the middle of its tile; the two halves of the truth one above the other.
    pet, border, predicted = (
        np.argwhere((pixels[18 : 18 + 128] == LABELS.palette[place]).all(axis=-1))
        for place in (0, 2, 1)
    )
    assert len(predicted) == 128 * 102
    assert len(pet) == len(border) == 64 * 102
    assert (pet.min(axis=0) == (0, border.min(axis=0)[1])).all()
    assert border[:, 0].min() == 64
    assert pet[:, 1].max() - pet[:, 1].min() == 101
    assert predicted[:, 1].min() - pet[:, 1].min() == 128 + 8
    beside = pixels[:, predicted[:, 1].max() + 4 :]
    assert (beside.sum(axis=-1) < 200).any()


def test_pictures_of_images_of_any_size_are_whole(bundle_uri: str, tmp_path: Path) -> None:
    """As with windows, where the network sees images at their own resolution."""
    bundle = dataclasses.replace(open_bundle(bundle_uri, []), labels=LABELS, fit="tile")
    worst = []
    for name, (height, width) in {"small": (64, 40), "large": (300, 400)}.items():
        (tmp_path / f"{name}.png").write_bytes(encode(draw_picture(height, width), "PNG"))
        truth = np.full((height, width), 1, dtype=np.uint8)
        (tmp_path / f"{name}_mask.png").write_bytes(encode(truth, "PNG"))
        worst.append(as_worst(tmp_path, name, np.full((height, width), 2, dtype=np.uint8)))
    content = draw_worst(worst, bundle)
    assert content
    with Image.open(io.BytesIO(content)) as sheet:
        pixels = np.asarray(sheet)
    for class_id in (0, 2):  # of truth and prediction; the legend has a few more
        found = (pixels == LABELS.palette[class_id]).all(axis=-1).sum()
        assert 256 * 160 + 256 * 192 <= found < 256 * 160 + 256 * 192 + 300

"""The stages of an evaluation, on tables made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image

from segray.evaluation.stages import (
    PAIRS_SCHEMA,
    Prediction,
    count,
    counted_schema,
    pack,
    read,
    unpack,
)
from segray.pixels.framing import Frame
from segray.pixels.labels import IGNORED, Labels
from segray.pixels.metrics import summed_cross_entropy
from tests.support import draw_picture, encode

LABELS = Labels.parse(["pet=1", "background=2"])


def as_logits(class_ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits of which these class ids win, float32 [h, w, 2]."""
    return np.stack([class_ids == 0, class_ids == 1], axis=-1).astype(np.float32)


def count_one(
    truth: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32], frame: Frame | None = None
) -> dict[str, Any]:
    frame = frame or Frame(*logits.shape[:2])
    row = {
        **{"number": 7, "image": "i.jpg", "mask": "m.png", "reason": None},
        **{"height": truth.shape[0], "width": truth.shape[1]},
        **{"says": "nothing", "turned": False},
        **{"truth": pack(truth), "pixels": bytes(3 * frame.pixels)},
    }
    prediction = Prediction(row, frame, len(LABELS), overlap=0)
    prediction.add(logits)
    [counted] = count(pa.Table.from_pylist([row]), LABELS, frame, [0.3, 0.3]).to_pylist()
    return counted


def test_a_column_that_is_lost_at_the_model_s_size_counts_at_the_image_s_own() -> None:
    truth = np.zeros((8, 8), dtype=np.uint8)
    truth[:, 0] = 1
    counted = count_one(truth, as_logits(np.zeros((4, 4), dtype=np.uint8)))
    # Of each 2x2 pixels the nearest is the last, so the first column is in none of the 4x4.
    assert Frame(4, 4).scale_mask(truth).max() == 0
    assert (counted["model_resolution_accuracy"], counted["model_resolution_mean_iou"]) == (1, 1)
    assert counted["accuracy"] == 56 / 64
    assert (counted["iou_pet"], counted["iou_background"]) == (56 / 64, 0)
    assert counted["mean_iou"] == 28 / 64
    assert (counted["precision_pet"], counted["recall_pet"]) == (56 / 64, 1)
    assert (counted["precision_background"], counted["recall_background"]) == (None, 0)
    assert counted["labelled_pixels"] == 64
    assert counted["loss"] == pytest.approx(np.log(1 + np.exp(-1)))


def test_bars_around_an_image_count_nowhere() -> None:
    truth = np.zeros((4, 8), dtype=np.uint8)
    truth[:, 4:] = 1
    ids = np.zeros((8, 8), dtype=np.uint8)
    ids[2:6, 4:] = 1
    ids[:2, :4] = ids[6:, :4] = 1  # wrong if it counted
    counted = count_one(truth, as_logits(ids), Frame(8, 8, "letterbox"))
    for resolution in ("", "model_resolution_"):
        assert counted[f"{resolution}accuracy"] == counted[f"{resolution}mean_iou"] == 1
    assert counted["labelled_pixels"] == 32
    assert unpack(counted["prediction"], 4, 8).tolist() == truth.tolist()
    assert counted["loss"] == pytest.approx(np.log(1 + np.exp(-1)))


def test_the_prediction_at_the_original_resolution_is_interpolated_from_logits() -> None:
    truth = np.zeros((1, 6), dtype=np.uint8)
    truth[0, 3:] = 1
    # Class 0 leads by 3 on the left and trails by 1 on the right: the contour is at three quarters
    # of the way between the two centres, 1.5 + 3 * 0.75 = 3.75, behind the fourth of six pixels.
    logits = np.zeros((2, 2, 2), dtype=np.float32)
    logits[:, 0, 0], logits[:, 1, 1] = 3, 1
    counted = count_one(truth, logits)
    assert dict(zip(counted["own_cells"], counted["own_counts"], strict=True)) == {0: 3, 2: 1, 3: 2}
    assert counted["model_resolution_accuracy"] == 1


def test_ignored_pixels_are_in_no_count() -> None:
    truth = np.array([[0, 1, IGNORED, IGNORED]] * 4, dtype=np.uint8)
    logits = as_logits(np.array([[0, 1, 0, 1]] * 4, dtype=np.uint8))
    counted = count_one(truth, logits)
    assert counted["labelled_pixels"] == sum(counted["own_counts"]) == 8
    assert sum(counted["model_counts"]) == 8
    assert (counted["accuracy"], counted["mean_iou"]) == (1, 1)
    assert counted["own_boundary"] == counted["model_boundary"] == [4, 4, 4, 4]
    assert counted["loss"] == pytest.approx(np.log(1 + np.exp(-1)))


def test_an_image_without_a_label_has_figures_that_are_null() -> None:
    truth = np.full((5, 3), IGNORED, dtype=np.uint8)
    counted = count_one(truth, as_logits(np.zeros((4, 4), dtype=np.uint8)))
    assert counted["labelled_pixels"] == 0
    for name in ("mean_iou", "accuracy", "model_resolution_mean_iou", "loss", "boundary_iou_pet"):
        assert counted[name] is None
    assert counted["own_cells"] == counted["model_counts"] == []


def test_truth_is_read_scaled_and_packed(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(1, 3, (50, 31), dtype=np.uint8)
    (tmp_path / "m.png").write_bytes(encode(mask, "PNG"))
    (tmp_path / "i.png").write_bytes(encode(draw_picture(50, 31), "PNG"))
    pair = {"number": 0, "key": "a", "image": f"{tmp_path}/i.png", "mask": f"{tmp_path}/m.png"}
    [row] = read(pa.Table.from_pylist([pair], PAIRS_SCHEMA), LABELS, Frame(16, 16)).to_pylist()
    assert row["reason"] is None
    assert (row["height"], row["width"]) == (50, 31)
    truth = unpack(row["truth"], 50, 31)
    assert np.array_equal(truth, mask - 1)
    nearest = Image.fromarray(truth).resize((16, 16), Image.Resampling.NEAREST)
    assert np.array_equal(Frame(16, 16).scale_mask(truth), np.asarray(nearest))


def test_a_pair_that_cannot_be_read_is_a_row_with_a_reason_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(encode(draw_picture(5, 5), "PNG"))
    (tmp_path / "m.png").write_bytes(b"no image")
    pair = {"number": 3, "key": "a", "image": f"{tmp_path}/i.png", "mask": f"{tmp_path}/m.png"}
    rows = read(pa.Table.from_pylist([pair], PAIRS_SCHEMA), LABELS, Frame(16, 16))
    counted = count(rows.append_column("logits", [[None]]), LABELS, Frame(16, 16), [0.3, 0.3])
    assert counted.schema.equals(counted_schema(LABELS))
    [row] = counted.to_pylist()
    assert row["number"] == 3
    assert "m.png" in row["reason"]
    assert "not an image" in row["reason"]
    assert row["own_cells"] is None


def test_loss_is_that_of_the_truth_at_the_model_s_size() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, (9, 13), dtype=np.uint8)
    logits = rng.normal(size=(4, 4, 2)).astype(np.float32)
    summed, pixels = summed_cross_entropy(logits, Frame(4, 4).scale_mask(truth))
    assert pixels == 16
    assert count_one(truth, logits)["loss"] == summed / 16

"""Evaluations on a real Ray, of labelled images on disk and in S3."""

import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image

import segray
from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.bulk.run import segment as run_segmentation
from segray.data.pairs import Pair
from segray.errors import InputError
from segray.evaluation.config import EvaluateConfig
from segray.evaluation.plan import prepare_evaluation
from segray.evaluation.stages import figures_schema
from segray.model.bundle import ONNX, open_bundle
from segray.pixels.labels import IGNORED, Labels
from segray.storage import lock
from segray.storage.files import child_names, read_bytes, write_bytes
from segray.storage.lock import LOCK, hold_lock
from segray.storage.uri import join_uri
from tests.support import IMAGE_SIZE, change_bundle, draw_picture, encode, logged_lines

pytestmark = pytest.mark.usefixtures("ray_session")

SIZES = [(40, 64), (64, 64), (90, 33), (20, 20), (31, 100), (50, 50), (70, 20)]


def draw_mask(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Blobs of the values 1, 2, 3 and, to be ignored, 255."""
    cells = np.random.default_rng(seed).choice([1, 2, 3, 255], (4, 4)).astype(np.uint8)
    scaled = Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)
    return np.array(scaled)


def write_labelled(folder: str) -> None:
    """Seven good pairs and, third and last, two that cannot be read."""
    for number, (height, width) in enumerate(SIZES):
        name = f"p{number}"
        picture, mask = draw_picture(height, width, number), draw_mask(height, width, number)
        write_bytes(join_uri(folder, "images", f"{name}.png"), encode(picture, "PNG"))
        write_bytes(join_uri(folder, "masks", f"{name}.png"), encode(mask, "PNG"))
    picture = encode(draw_picture(30, 30, 99), "PNG")
    for name, mask in (("p1b", b"damaged"), ("p9", encode(draw_mask(10, 30, 0), "PNG"))):
        write_bytes(join_uri(folder, "images", f"{name}.png"), picture)
        write_bytes(join_uri(folder, "masks", f"{name}.png"), mask)


def run(config: EvaluateConfig) -> Any:
    """What jobs/evaluate.py does, but for its table and its exit status."""
    from segray.evaluation.run import evaluate

    return evaluate(prepare_evaluation(config))


@pytest.fixture(scope="module")
def finished(bundle_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An evaluation with one worker, of files on disk."""
    folder = str(tmp_path_factory.mktemp("labelled"))
    write_labelled(folder)
    config = EvaluateConfig(
        model=bundle_uri,
        images=f"{folder}/images",
        masks=f"{folder}/masks",
        output=f"{folder}/out",
        batch_size=2,
        workers=1,
    )
    return config, run(config)


def metrics(output: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(read_bytes(join_uri(output, "metrics.json")), parse_constant=refuse)


def rows(output: str) -> list[dict[str, Any]]:
    content = read_bytes(join_uri(output, "per_image.parquet"))
    return pq.read_table(io.BytesIO(content)).to_pylist()


def truth_of(number: int) -> npt.NDArray[np.uint8]:
    mask = draw_mask(*SIZES[number], number)
    return np.where(mask == 255, np.uint8(IGNORED), mask - np.uint8(1))


def naive_confusion(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[list[int]]:
    return [
        [sum(int(((t == row) & (p == column)).sum()) for t, p in pairs) for column in range(3)]
        for row in range(3)
    ]


def test_counts_at_the_original_resolution_are_those_of_the_masks_that_segmenting_makes(
    finished,
) -> None:
    config, _ = finished
    segmenter = segray.load(config.model)
    pairs = [
        (truth_of(number), segmenter.segment(f"{config.images}/p{number}.png"))
        for number in range(len(SIZES))
    ]
    figures = metrics(config.output)["original_resolution"]
    assert figures["confusion"] == naive_confusion(pairs)
    assert figures["pixels"] == sum(int((truth != IGNORED).sum()) for truth, _ in pairs)
    for number, row in enumerate(rows(config.output)):
        truth, prediction = pairs[number]
        labelled = truth != IGNORED
        assert row["labelled_pixels"] == labelled.sum()
        assert row["accuracy"] == (truth == prediction)[labelled].mean()


def test_flipping_is_scored_as_it_segments(finished, tmp_path: Path) -> None:
    config, plain = finished
    config = dataclasses.replace(config, test_time_flip=True, output=str(tmp_path / "out"))
    flipped = run(config)
    assert flipped.evaluated == plain.evaluated
    assert metrics(config.output)["configuration"]["test_time_flip"]
    assert flipped.original_resolution.mean_iou != plain.original_resolution.mean_iou


@pytest.mark.parametrize("fit", ["letterbox", "tile"])
def test_other_masks_are_scored_as_segmenting_makes_them(
    finished, bundle_uri: str, tmp_path: Path, fit: str
) -> None:
    config, _ = finished
    model = change_bundle(bundle_uri, tmp_path, fit=fit)
    config = dataclasses.replace(config, model=model, output=str(tmp_path / "out"))
    run(config)
    segmenter = segray.load(model)
    pairs = [
        (truth_of(number), segmenter.segment(f"{config.images}/p{number}.png"))
        for number in range(len(SIZES))
    ]
    assert metrics(config.output)["original_resolution"]["confusion"] == naive_confusion(pairs)
    assert (tmp_path / "out" / "worst.png").exists()


def test_counts_at_the_model_s_size_are_those_that_training_makes(finished) -> None:
    config, _ = finished
    segmenter = segray.load(config.model)
    pairs = []
    for number in range(len(SIZES)):
        picture = Image.fromarray(draw_picture(*SIZES[number], number))
        size = (IMAGE_SIZE, IMAGE_SIZE)
        scaled = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
        truth = Image.fromarray(truth_of(number)).resize(size, Image.Resampling.NEAREST)
        pairs.append((np.asarray(truth), segmenter.segment(scaled)))
    figures = metrics(config.output)["model_resolution"]
    assert figures["confusion"] == naive_confusion(pairs)
    losses = [
        (row["loss"], int((pairs[i][0] != IGNORED).sum()))
        for i, row in enumerate(rows(config.output))
    ]
    expected = sum(loss * pixels for loss, pixels in losses) / figures["pixels"]
    assert figures["loss"] == pytest.approx(expected)


def test_an_unreadable_pair_is_listed_with_a_reason_and_in_no_count(finished) -> None:
    config, evaluation = finished
    record = metrics(config.output)
    assert record["counts"] == {"images": 9, "evaluated": 7, "skipped": 2}
    assert (evaluation.images, evaluation.evaluated) == (9, 7)
    lines = [json.loads(line) for line in read_bytes(f"{config.output}/skipped.jsonl").splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["p1b.png", "p9.png"]
    assert "p1b.png" in lines[0]["reason"]
    assert "30 x 10" in lines[1]["reason"]
    images = [Path(row["image"]).name for row in rows(config.output)]
    assert images == [f"p{number}.png" for number in range(7)]


def test_columns_are_plain_and_those_of_the_contract(finished, labels: Labels) -> None:
    config, _ = finished
    table = pq.read_table(f"{config.output}/per_image.parquet")
    assert table.schema.equals(figures_schema(labels), check_metadata=True)
    for row in table.to_pylist():
        present = [row[f"iou_{name}"] for name in labels.names if row[f"iou_{name}"] is not None]
        assert row["mean_iou"] == pytest.approx(np.mean(present))
        assert row["mask"] == row["image"].replace("/images/", "/masks/")


def test_the_expected_iou_is_that_of_a_segmentation(finished, labels: Labels) -> None:
    config, evaluation = finished
    segment = SegmentConfig(
        model=config.model, images=config.images, output=f"{config.output}-segmented"
    )
    with make_plan(segment) as plan:
        run_segmentation(plan, on_ray=False)
    segmented = pq.read_table(f"{segment.output}/results").to_pylist()
    found = {row["uri"]: row for row in segmented}
    for row in rows(config.output):
        for name in ("expected_iou", *(f"expected_iou_{name}" for name in labels.names)):
            assert row[name] == pytest.approx(found[row["image"]][name], rel=1e-5)
    record = metrics(config.output)["expected"]
    intersection = [
        sum(
            r[f"pixels_{n}"] * (r[f"confidence_{n}"] or 0)
            for r in found.values()
            if "p1b" not in r["uri"] and "p9" not in r["uri"]
        )
        for n in labels.names
    ]
    assert intersection == pytest.approx(evaluation.expected.intersection, rel=1e-5)
    assert list(record["iou"].values()) == evaluation.expected_iou
    assert record["mean_iou"] == pytest.approx(np.mean(evaluation.expected_iou))
    ranks = [
        np.argsort(np.argsort([row[name] for row in rows(config.output)]))
        for name in ("expected_iou", "mean_iou")
    ]
    assert record["rank_correlation"] == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_the_record_says_what_was_scored_and_how(finished) -> None:
    config, evaluation = finished
    record = metrics(config.output)
    bundle = open_bundle(config.model, [])
    assert record["model"] == {"uri": bundle.uri, "digest": bundle.digest}
    assert record["engine"] == evaluation.engine == "onnx"
    assert record["configuration"] == config.to_json()
    assert record["versions"]["segray"] == segray.__version__
    assert list(record["original_resolution"]["classes"]) == ["pet", "background", "border"]


def test_the_query_of_the_document(
    finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    config, _ = finished
    text = (Path(__file__).parents[2] / "docs" / "outputs" / "evaluation.md").read_text()
    [query] = re.findall(r"```duckdb\n(.*?)```", text, re.DOTALL)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "evaluate").symlink_to(config.output)
    monkeypatch.chdir(tmp_path)
    answer = duckdb.sql(query).fetchall()
    assert len(answer) == 5
    ious = [row[1] for row in answer]
    assert ious == sorted(ious)
    assert ious[0] == round(min(row["mean_iou"] for row in rows(config.output)), 3)


def test_pictures_are_there(finished) -> None:
    config, _ = finished
    for name in ("confusion.png", "expected.png", "worst.png"):
        with Image.open(io.BytesIO(read_bytes(join_uri(config.output, name)))) as picture:
            picture.load()
            assert picture.width > 300
    assert picture.height > 7 * 128


def test_two_workers_and_s3_give_the_same_figures(
    finished, s3: Callable[[str], str], bundle_uri: str
) -> None:
    config, _ = finished
    bucket = s3("labelled")
    write_labelled(bucket)
    again = dataclasses.replace(
        config,
        images=f"{bucket}/images",
        masks=f"{bucket}/masks",
        output=f"{bucket}/out",
        workers=2,
    )
    run(again)
    first, second = metrics(config.output), metrics(again.output)
    for part in ("counts", "original_resolution", "model_resolution", "expected"):
        assert json.dumps(first[part]) == json.dumps(second[part])
    for one, other in zip(rows(config.output), rows(again.output), strict=True):
        assert Path(one.pop("image")).name == Path(other.pop("image")).name
        assert one.pop("mask") != other.pop("mask")
        assert one == other


def test_a_process_without_ray_gives_the_same_figures(finished, tmp_path: Path) -> None:
    config, _ = finished
    again = dataclasses.replace(config, output=str(tmp_path / "out"), workers=0)
    code = (
        "import sys; from segray.evaluation.config import EvaluateConfig\n"
        "from segray.evaluation.plan import prepare_evaluation\n"
        "from segray.evaluation.run import evaluate\n"
        "import ray\n"
        f"evaluate(prepare_evaluation({again!r}), on_ray=False)\n"
        "sys.exit(ray.is_initialized())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    first, second = metrics(config.output), metrics(again.output)
    for part in ("counts", "original_resolution", "model_resolution", "expected"):
        assert json.dumps(first[part]) == json.dumps(second[part])
    assert rows(config.output) == rows(again.output)


def test_a_manifest_s_split_is_scored_with_a_bundle_in_memory(
    finished, bundle_uri: str, tmp_path: Path, lines: list[str]
) -> None:
    """As training calls it at its end; the engine's file is read where the bundle has it not."""
    from segray.evaluation.run import evaluate_pairs

    config, _ = finished
    pair = Pair("p0", f"{config.images}/p0.png", f"{config.masks}/p0.png")
    output = str(tmp_path / "out")
    evaluation = evaluate_pairs(open_bundle(bundle_uri, []), [pair], output)
    assert lines == ["scoring 1 pairs with onnx"]
    assert ONNX in evaluation.model.files
    assert evaluation.original_resolution.mean_iou == rows(config.output)[0]["mean_iou"]
    assert metrics(output)["configuration"]["batch_size"] == 32


@pytest.mark.parametrize("learned", ["p0", "elsewhere"])
def test_images_that_the_model_has_learned_from_are_told(
    finished, bundle_uri: str, tmp_path: Path, learned: str, lines: list[str]
) -> None:
    config, _ = finished
    shutil.copytree(bundle_uri, tmp_path / "model")
    table = "image,mask,split,key,digest\n"
    for name, split in (("p1", "validation"), (learned, "train")):
        table += f"{config.images}/{name}.png,{config.masks}/{name}.png,{split},{name},0\n"
    (tmp_path / "pairs.csv").write_text(table)
    moved = dataclasses.replace(config, model=str(tmp_path / "model"), output=str(tmp_path / "out"))
    prepare_evaluation(moved)
    told = [line for line in lines if line.startswith("1 of these 9 images were in the ")]
    assert len(told) == 1 + (learned == "p0")
    assert told[-1].endswith(f"validation set of the model: see {tmp_path}/pairs.csv")
    assert ("training set of the model: see" in told[0]) == (learned == "p0")

    # A table of the user's own that lies there says nothing.
    (tmp_path / "pairs.csv").write_text(table.replace("key", "note"))
    lines.clear()
    prepare_evaluation(moved)
    assert not [line for line in lines if "of these" in line]


def test_where_nothing_can_be_read_figures_are_null_and_old_pictures_go(
    finished, bundle_uri: str, tmp_path: Path
) -> None:
    from segray.evaluation.run import evaluate_pairs

    (tmp_path / "worst.png").write_bytes(b"of an earlier evaluation")
    pair = Pair("gone", str(tmp_path / "gone.jpg"), str(tmp_path / "gone.png"))
    evaluation = evaluate_pairs(bundle_uri, [pair], str(tmp_path))
    assert (evaluation.evaluated, evaluation.loss) == (0, None)
    record = metrics(str(tmp_path))
    assert record["original_resolution"]["mean_iou"] is record["model_resolution"]["loss"] is None
    assert rows(str(tmp_path)) == []
    assert not (tmp_path / "worst.png").exists()
    assert "gone.jpg" in (tmp_path / "skipped.jsonl").read_text()


def test_two_evaluations_of_one_output_at_once_are_refused(finished) -> None:
    config, _ = finished
    with (
        hold_lock(config.output),
        pytest.raises(InputError, match="another run is at work on this output"),
    ):
        run(config)


def test_an_evaluation_whose_lock_was_taken_writes_nothing(
    finished, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.1)
    config, _ = finished
    output = s3("taken-evaluation") + "/out"
    theirs = {"metrics.json": b"{}", "worst.png": b"of the other run"}

    def take(line: str) -> None:
        if line.startswith("scoring 9 pairs"):
            for name, content in theirs.items():
                write_bytes(f"{output}/{name}", content)
            write_bytes(f"{output}/{LOCK}", b'{"run": "of someone else"}')

    with logged_lines(take), pytest.raises(InputError, match="was taken by another run"):
        run(dataclasses.replace(config, output=output))
    assert sorted(child_names(output)) == sorted([*theirs, LOCK])
    assert {name: read_bytes(f"{output}/{name}") for name in theirs} == theirs


def test_an_evaluation_that_is_refused_leaves_no_figures_of_another(
    finished, tmp_path: Path
) -> None:
    config, _ = finished
    shutil.copytree(config.output, tmp_path / "out")
    shutil.copytree(config.images, tmp_path / "images")
    shutil.copy(next((tmp_path / "images").iterdir()), tmp_path / "images" / "lone.png")
    again = dataclasses.replace(
        config, images=str(tmp_path / "images"), output=str(tmp_path / "out"), max_error_rate=0.0
    )
    with pytest.raises(InputError, match="over --max-error-rate"):
        run(again)
    assert "lone.png" in (tmp_path / "out" / "skipped.jsonl").read_text()
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_no_pair_is_refused(bundle_uri: str, tmp_path: Path) -> None:
    from segray.evaluation.run import evaluate_pairs

    with pytest.raises(InputError, match="no labelled pair"):
        evaluate_pairs(bundle_uri, [], str(tmp_path))


@pytest.mark.parametrize("engine", ["tensorflow", "onnx"])
def test_a_gpu_that_the_engine_does_not_see_is_refused_in_a_line(
    engine: str, bundle_uri: str, tmp_path: Path
) -> None:
    """Ray counts a GPU here, and there is none; nothing is scored on the CPU instead."""
    from segray.evaluation.run import evaluate_pairs

    pair = Pair("one", str(tmp_path / "one.jpg"), str(tmp_path / "one.png"))
    with pytest.raises(InputError, match="--use-gpu") as refused:
        evaluate_pairs(
            *(bundle_uri, [pair], str(tmp_path / "out")),
            use_gpu=True,
            engine=engine,
        )
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()

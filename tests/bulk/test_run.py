"""Segmentation runs on a real Ray and a real S3 endpoint."""

import dataclasses
import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

import segray
from segray.bulk.cluster import segment_on_ray
from segray.bulk.config import SegmentConfig
from segray.bulk.manifest import read_manifest
from segray.bulk.pipeline import Pipeline, PipelineConfig
from segray.bulk.plan import make_plan
from segray.bulk.tally import Tally
from segray.errors import InputError
from segray.model.predictor import Predictor
from segray.pixels.labels import Labels
from segray.pixels.masks import decode_mask
from segray.storage.files import PARTIAL, read_bytes, remove, write_bytes
from segray.storage.tables import ERRORS_SCHEMA, MANIFEST_SCHEMA, results_schema, table_uris
from segray.storage.uri import join_uri
from tests.support import change_bundle, encode, logged_lines


def draw(height: int, width: int, seed: int) -> np.ndarray:
    """Blobs of colour, uint8 [H, W, 3]."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def turned_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    return exif.tobytes()


GOOD = {
    "a.jpg": encode(draw(60, 90, 1), "JPEG"),
    "deep/er/a.png": encode(draw(31, 17, 2), "PNG"),
    "really a gif.jpg": encode(draw(40, 50, 3), "GIF"),
    "really-a-png.JPG": encode(draw(50, 40, 4), "PNG"),
    "grüße [1] 100%2F.webp": encode(draw(64, 64, 5), "WEBP"),
    "grey.tif": encode(draw(20, 300, 6)[..., 0], "TIFF"),
    "turned.jpg": encode(draw(30, 80, 7), "JPEG", exif=turned_exif()),
    "one pixel.bmp": encode(draw(1, 1, 8), "BMP"),
}
BAD = {
    "empty.jpg": b"",
    "text.png": b"this is no image",
    "cut.jpg": encode(draw(200, 200, 9), "JPEG")[:-900],
}
OTHER = {"notes.txt": b"not asked for", ".hidden.jpg": b"hidden"}


def run(config: SegmentConfig, on_ray: bool = False):
    """What jobs/segment.py does, and the lines that it would print."""
    from segray.bulk.run import segment

    with logged_lines() as lines, make_plan(config) as plan:
        summary = segment(plan, on_ray)
    return summary, lines


def plan_only(config: SegmentConfig) -> None:
    with make_plan(config):
        pass


def counts(summary) -> tuple[int, int, int]:
    outcome = summary.census
    return outcome.listed, outcome.segmented, outcome.failed


def rows(output: str, folder: str) -> list[dict[str, Any]]:
    return [row for table in tables(output, folder) for row in table.to_pylist()]


def tables(output: str, folder: str) -> list[pa.Table]:
    found = table_uris(join_uri(output, folder))
    return [pq.read_table(io.BytesIO(read_bytes(uri))) for uri in found]


@pytest.fixture(scope="module")
def bucket(aws_environment: None, ray_session: None) -> str:
    import boto3

    boto3.client("s3").create_bucket(Bucket="photos")
    for key, content in {**GOOD, **BAD, **OTHER}.items():
        write_bytes(f"s3://photos/in/{key}", content)
    return "s3://photos"


@pytest.fixture(scope="module", params=["on Ray", "in this process"])
def finished(request: pytest.FixtureRequest, bucket: str, bundle_uri: str):
    output = f"{bucket}/out-{request.param.replace(' ', '-').lower()}"
    config = SegmentConfig(model=bundle_uri, images=f"{bucket}/in", output=output, batch_size=4)
    summary, lines = run(config, on_ray=request.param == "on Ray")
    return config, summary, lines


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of four images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(GOOD["a.jpg"])
    return folder


@pytest.fixture
def config(images: Path, bundle_uri: str, tmp_path: Path) -> SegmentConfig:
    return SegmentConfig(model=bundle_uri, images=str(images), output=str(tmp_path / "out"))


def test_every_image_has_one_row_in_results_or_errors(finished) -> None:
    config, summary, _ = finished
    uris = [row["uri"] for row in rows(config.output, "results")]
    assert sorted(uris) == sorted(f"s3://photos/in/{key}" for key in GOOD)
    failed = [row["uri"] for row in rows(config.output, "errors")]
    assert sorted(failed) == sorted(f"s3://photos/in/{key}" for key in BAD)
    assert counts(summary) == (11, 8, 3)


def test_ids_are_those_of_the_manifest(finished) -> None:
    config, *_ = finished
    manifest = {row["uri"]: row for row in rows(config.output, "manifest")}
    assert len(manifest) == 11
    for row in rows(config.output, "results") + rows(config.output, "errors"):
        assert row["id"] == manifest[row["uri"]]["id"]
    for key, content in GOOD.items():
        assert manifest[f"s3://photos/in/{key}"]["size"] == len(content)


def test_columns_are_those_of_the_contract(finished, labels: Labels) -> None:
    config, *_ = finished
    expected = {
        "manifest": MANIFEST_SCHEMA,
        "results": results_schema(labels),
        "errors": ERRORS_SCHEMA,
    }
    for folder, schema in expected.items():
        for table in tables(config.output, folder):
            assert table.schema.equals(schema)
    assert [str(field.type) for field in expected["results"]][:5] == [
        "int64",
        "string",
        "int32",
        "int32",
        "struct<bytes: binary, path: string>",
    ]


def test_masks_equal_those_of_the_segmenter_pixel_for_pixel(finished) -> None:
    config, *_ = finished
    segmenter = segray.load(config.model)
    for row in rows(config.output, "results"):
        mask = decode_mask(row["mask"]["bytes"])
        assert mask.shape == (row["height"], row["width"])
        np.testing.assert_array_equal(mask, segmenter.segment(row["uri"]))
        assert row["model"] == segmenter.digest


def test_tiled_masks_do_not_depend_on_batches_or_workers(bundle_uri: str, tmp_path: Path) -> None:
    sizes = [(200, 300), (20, 30), (64, 64), (90, 500), (1, 1)]
    for number, size in enumerate(sizes):
        write_bytes(f"{tmp_path}/in/{number}.png", encode(draw(*size, number), "PNG"))
    model = change_bundle(bundle_uri, tmp_path, fit="tile")
    config = SegmentConfig(
        model=model, images=f"{tmp_path}/in", output=f"{tmp_path}/out", workers=0
    )
    segmenter = segray.load(model)
    expected = {
        f"{tmp_path}/in/{number}.png": segmenter.segment(f"{tmp_path}/in/{number}.png")
        for number in range(len(sizes))
    }
    outputs = {}
    for batch_size in (1, 5, 32):
        output = f"{tmp_path}/out{batch_size}"
        summary, _ = run(dataclasses.replace(config, batch_size=batch_size, output=output))
        assert counts(summary) == (5, 5, 0)
        for row in rows(output, "results"):
            np.testing.assert_array_equal(decode_mask(row["mask"]["bytes"]), expected[row["uri"]])
            height, width = expected[row["uri"]].shape
            assert (row["height"], row["width"]) == (height, width)
        outputs[batch_size] = sorted(rows(output, "results"), key=lambda row: row["id"])
    assert outputs[1] == outputs[5] == outputs[32]


def test_masks_have_the_upright_size_of_their_images(finished) -> None:
    config, *_ = finished
    sizes = {row["uri"]: (row["width"], row["height"]) for row in rows(config.output, "results")}
    assert sizes["s3://photos/in/turned.jpg"] == (30, 80)
    assert sizes["s3://photos/in/grey.tif"] == (300, 20)
    assert sizes["s3://photos/in/one pixel.bmp"] == (1, 1)


def test_statistics_are_those_of_the_mask(finished, labels: Labels) -> None:
    config, *_ = finished
    for row in rows(config.output, "results"):
        mask = decode_mask(row["mask"]["bytes"])
        for class_id, name in enumerate(labels.names):
            count = int((mask == class_id).sum())
            assert row[f"pixels_{name}"] == count
            assert row[f"fraction_{name}"] == pytest.approx(count / mask.size, abs=1e-6)
            confidence = row[f"confidence_{name}"]
            assert (confidence is None) if count == 0 else (1 / 3 <= confidence <= 1)


def test_the_expected_iou_follows_from_the_columns_of_any_images(finished, labels: Labels) -> None:
    config, *_ = finished
    sums = np.zeros((2, 3))
    for row in rows(config.output, "results"):
        area = row["width"] * row["height"]
        known = []
        for class_id, name in enumerate(labels.names):
            pixels, expected = row[f"pixels_{name}"], row[f"expected_pixels_{name}"]
            intersection = pixels * (row[f"confidence_{name}"] or 0)
            union = pixels + expected - intersection
            sums[:, class_id] += intersection, union
            iou = row[f"expected_iou_{name}"]
            assert (iou is None) == (union <= area / 1000)
            if iou is not None:
                assert iou == pytest.approx(intersection / union, abs=1e-5)
                known.append(iou)
        assert row["expected_iou"] == pytest.approx(np.mean(known), abs=1e-6)
        total = sum(row[f"expected_pixels_{name}"] for name in labels.names)
        assert total == pytest.approx(area, rel=0.1)
    record = json.loads(read_bytes(join_uri(config.output, "run.json")))
    assert list(record["expected_iou"].values()) == pytest.approx(sums[0] / sums[1], abs=1e-5)
    assert record["expected_mean_iou"] == pytest.approx(np.mean(sums[0] / sums[1]), abs=1e-5)


def test_the_expected_iou_is_corrected_and_the_same_after_a_resume(
    bundle_uri: str, tmp_path: Path
) -> None:
    for number in range(6):
        write_bytes(f"{tmp_path}/in/{number}.png", encode(draw(50, 40, number), "PNG"))
    model = tmp_path / "model"
    shutil.copytree(bundle_uri, model)
    document = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(document | {"iou_exponent": 2.0}))
    plain = SegmentConfig(model=bundle_uri, images=f"{tmp_path}/in", output=f"{tmp_path}/plain")
    other = dataclasses.replace(plain, model=str(model), output=f"{tmp_path}/other")
    whole, _ = run(plain)
    run(dataclasses.replace(other, limit=2))
    corrected, _ = run(other)
    assert corrected.processed == 4
    for name, iou in whole.expected_iou.items():
        assert iou is not None
        assert corrected.expected_iou[name] == pytest.approx(iou**2, rel=1e-5)


def test_errors_say_at_which_stage_and_why(finished) -> None:
    config, *_ = finished
    errors = {row["uri"].rpartition("/")[2]: row for row in rows(config.output, "errors")}
    assert {row["stage"] for row in errors.values()} == {"decode"}
    assert "empty" in errors["empty.jpg"]["message"]
    assert "not an image" in errors["text.png"]["message"]
    assert "truncated" in errors["cut.jpg"]["message"]
    assert all(row["error"] and "\n" not in row["message"] for row in errors.values())


def test_files_left_out_are_counted(finished) -> None:
    *_, lines = finished
    assert "found 11 images; left out: 1 with another suffix, 1 hidden" in lines


def test_record_has_counts_and_no_secret(finished) -> None:
    config, *_ = finished
    text = read_bytes(join_uri(config.output, "run.json")).decode()
    record = json.loads(text)
    expected = {"listed": 11, "segmented": 8, "failed": 3, "processed": 11, "stale": 0}
    assert record["counts"].items() >= expected.items()
    assert record["counts"]["left_out"]["hidden"] == 1
    assert record["images_per_second"] > 0
    assert record["cost"]["node_hours"] == pytest.approx(record["seconds"] / 3600, rel=0.1)
    assert record["cost"]["requests"]["GetObject"] >= 11
    assert sum(record["shares"].values()) == pytest.approx(1)
    assert "test-secret" not in text
    assert "test-key" not in text


def test_again_does_only_what_is_new_or_changed(s3: Callable[[str], str], bundle_uri: str) -> None:
    bucket = s3("again")
    for key, content in {**GOOD, **BAD}.items():
        write_bytes(f"{bucket}/in/{key}", content)
    config = SegmentConfig(model=bundle_uri, images=f"{bucket}/in", output=f"{bucket}/out")
    run(config)
    before = table_uris(join_uri(config.output, "results"))
    assert run(config)[0].processed == 0

    write_bytes(f"{bucket}/in/new.png", encode(draw(9, 9, 10), "PNG"))
    write_bytes(f"{bucket}/in/a.jpg", encode(draw(70, 70, 11), "JPEG"))
    summary, _ = run(config)
    assert summary.processed == 2
    assert counts(summary) == (12, 9, 3)
    assert summary.census.stale == 1
    assert set(before) < set(table_uris(join_uri(config.output, "results")))
    new = [row for row in rows(config.output, "results") if row["uri"].endswith("in/a.jpg")]
    assert sorted(row["height"] for row in new) == [60, 70]  # the old row is of an old id

    write_bytes(f"{bucket}/in/empty.jpg", GOOD["a.jpg"])
    write_bytes(f"{bucket}/in/text.png", BAD["text.png"])
    summary, _ = run(dataclasses.replace(config, retry_errors=True))
    assert summary.census.failed == 2
    failed = [row["uri"].rpartition("/")[2] for row in rows(config.output, "errors")]
    assert sorted(failed) == ["cut.jpg", "text.png"]
    remove(f"{bucket}/in/new.png")
    summary, _ = run(config)
    assert (summary.processed, summary.census.listed, summary.census.stale) == (0, 11, 2)


def test_pruning_removes_the_rows_of_images_that_are_gone_or_changed(
    images: Path, config: SegmentConfig
) -> None:
    run(config)
    (images / "1.jpg").unlink()
    (images / "2.jpg").write_bytes(GOOD["turned.jpg"])
    summary, lines = run(dataclasses.replace(config, prune=True))
    assert (summary.processed, summary.census.stale) == (1, 0)
    assert "removed 2 rows of images that are gone or have changed" in lines
    found = sorted(row["uri"].rpartition("/")[2] for row in rows(config.output, "results"))
    assert found == ["0.jpg", "2.jpg", "3.jpg"]


def test_pruning_removes_nothing_while_something_cannot_be_looked_at(
    images: Path, config: SegmentConfig
) -> None:
    """It may be, or hold, the images whose rows would be removed."""
    run(config)
    (images / "1.jpg").unlink()
    (images / "odd.jpg").symlink_to("x" * 300)  # too long a name for the system
    summary, lines = run(dataclasses.replace(config, prune=True))
    assert len(rows(config.output, "results")) == 4
    assert (summary.census.listed, summary.census.stale) == (3, 1)
    assert any("no row is removed" in line for line in lines)


def test_another_model_size_is_refused_and_overwriting_begins_anew(
    images: Path, config: SegmentConfig
) -> None:
    run(config)
    smaller = dataclasses.replace(config, mask_size="model")
    with pytest.raises(InputError, match=r"--mask-size original, and .* --mask-size model"):
        plan_only(smaller)
    summary, lines = run(dataclasses.replace(smaller, overwrite=True))
    assert summary.processed == 4
    assert any("deleted" in line for line in lines)
    masks = [decode_mask(row["mask"]["bytes"]) for row in rows(config.output, "results")]
    assert [mask.shape for mask in masks] == [(64, 64)] * 4


def test_what_keeps_a_run_from_starting_deletes_nothing(
    images: Path, config: SegmentConfig
) -> None:
    (images / "bad.jpg").write_bytes(BAD["empty.jpg"])
    run(config)
    before = read_bytes(join_uri(config.output, "run.json"))
    (images / "new.jpg").write_bytes(GOOD["a.jpg"])  # so that there is something to do
    for flags in ({}, {"overwrite": True}, {"retry_errors": True}):
        refused = dataclasses.replace(config, engine="onnx", use_gpu=True, **flags)
        with pytest.raises(InputError, match="no GPU can be used"):
            run(refused)
        assert len(rows(config.output, "results")) == 4
        assert len(rows(config.output, "errors")) == 1
        assert read_bytes(join_uri(config.output, "run.json")) == before


def test_patterns_and_suffixes_choose_the_images(images: Path, config: SegmentConfig) -> None:
    (images / "old" / "er").mkdir(parents=True)
    (images / "old" / "er" / "9.jpg").write_bytes(GOOD["a.jpg"])
    (images / "old" / "8.scan").write_bytes(GOOD["a.jpg"])
    chosen = dataclasses.replace(
        config, include=("old/*", "?.jpg"), exclude=("3*",), suffixes=(".jpg", ".scan")
    )
    summary, lines = run(chosen)
    found = [row["uri"].removeprefix(f"{images}/") for row in rows(config.output, "results")]
    assert sorted(found) == ["0.jpg", "1.jpg", "2.jpg", "old/8.scan", "old/er/9.jpg"]
    assert any("found 5 images; left out: 1 by --include or --exclude" in line for line in lines)
    assert summary.census.left_out.excluded == 1


def test_a_manifest_takes_the_place_of_a_listing(
    images: Path, config: SegmentConfig, tmp_path: Path
) -> None:
    table = tmp_path / "some.csv"
    table.write_text(f"uri\n{images}/0.jpg\nimages/2.jpg\n{images}/2.jpg\n{images}/gone.jpg\n")
    chosen = dataclasses.replace(config, images=None, manifest=str(table))
    summary, _ = run(chosen)
    assert counts(summary) == (3, 2, 1)
    found = [row["uri"].rpartition("/")[2] for row in rows(config.output, "results")]
    assert sorted(found) == ["0.jpg", "2.jpg"]
    [failed] = rows(config.output, "errors")
    assert (failed["uri"], failed["stage"]) == (f"{images}/gone.jpg", "fetch")
    assert run(chosen)[0].processed == 0


def test_what_a_killed_run_left_half_done_is_removed(images: Path, config: SegmentConfig) -> None:
    run(config)
    [results] = table_uris(join_uri(config.output, "results"))
    whole = Path(results).read_bytes()
    Path(results).write_bytes(whole[: len(whole) // 2])
    half = Path(config.output, "results", ".partial-abc")
    half.write_bytes(b"PAR1 and then the power went")
    summary, lines = run(config)
    assert any(results in line and "damaged" in line for line in lines)
    assert not half.exists()
    assert counts(summary) == (4, 4, 0)
    assert summary.processed == 4


def test_a_doubled_row_is_removed(images: Path, config: SegmentConfig) -> None:
    """As a lost worker leaves it, whose task was done again while it still wrote."""
    run(config)
    [results] = table_uris(join_uri(config.output, "results"))
    twin = Path(config.output, "results", "twin.parquet")
    pq.write_table(pq.read_table(results).slice(1, 2), twin)
    summary, lines = run(config)
    assert counts(summary) == (4, 4, 0)
    assert "removed 2 duplicate rows" in lines
    assert len(rows(config.output, "results")) == 4


def test_an_image_in_results_loses_its_row_in_errors(images: Path, config: SegmentConfig) -> None:
    run(config)
    row = rows(config.output, "results")[0]
    failure = {"id": row["id"], "uri": row["uri"], "stage": "fetch", "error": "x", "message": "y"}
    errors = Path(config.output, "errors")
    errors.mkdir()
    pq.write_table(pa.Table.from_pylist([failure], ERRORS_SCHEMA), errors / "late.parquet")
    assert counts(run(config)[0]) == (4, 4, 0)
    assert rows(config.output, "errors") == []


def test_two_objects_with_one_id_are_named(config: SegmentConfig) -> None:
    with make_plan(config) as plan:
        list(plan.search.list_and_record(0, plan.done, lambda found: None))
        [file] = table_uris(join_uri(config.output, "manifest"))
        table = pq.read_table(file)
        pq.write_table(table.set_column(0, "id", pa.array([7, 7, 8, 9])), file)
        with pytest.raises(InputError, match=r"0\.jpg and .*1\.jpg have the same 64-bit id"):
            read_manifest(plan.output, plan.search.run, len(plan.search.parts))


@pytest.mark.parametrize("left", [0, 1])
def test_a_manifest_that_cannot_be_seen_is_no_empty_bucket(
    images: Path, config: SegmentConfig, tmp_path: Path, left: int
) -> None:
    """As searches leave it that ran on other nodes, each with a disk of its own."""
    (tmp_path / "tables").mkdir()
    for number in range(2):
        table = pa.table({"uri": [f"{images}/{number}.jpg"]})
        pq.write_table(table, tmp_path / "tables" / f"{number}.parquet")
    config = dataclasses.replace(config, images=None, manifest=f"{tmp_path}/tables")
    with make_plan(config) as plan:
        pipeline = Pipeline(PipelineConfig.of(plan, 1), plan.predictor_loader(1)(), Tally())
        for part in range(2):
            [entries] = plan.search.list_and_record(part, plan.done, lambda found: None)
            pipeline.segment(entries)
        for uri in table_uris(join_uri(config.output, "manifest"))[left:]:
            remove(uri)
        reason = rf"{left} rows and the ends of {left} of 2 parts .*on several nodes"
        with pytest.raises(InputError, match=reason):
            read_manifest(plan.output, plan.search.run, len(plan.search.parts))


def test_an_interrupted_run_with_overwrite_goes_on(config: SegmentConfig) -> None:
    """As a job is started again whose head was lost."""
    run(config)
    anew = dataclasses.replace(config, overwrite=True)
    with make_plan(anew) as plan:
        pipeline = Pipeline(PipelineConfig.of(plan, 1), plan.predictor_loader(1)(), Tally())
        plan.claim()
        entries = next(plan.search.list_and_record(0, plan.done, lambda found: None))
        pipeline.segment(entries[:1])
    [half] = Path(config.output, "results").iterdir()
    before = half.stat()

    summary, _ = run(anew)

    assert half.stat().st_mtime_ns == before.st_mtime_ns
    assert counts(summary) == (4, 4, 0)
    # Now it has ended.
    run(anew)
    assert not half.exists()


def test_an_overwrite_that_is_interrupted_while_it_deletes_deletes_the_rest(
    config: SegmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    anew = dataclasses.replace(config, overwrite=True)
    run(anew)
    [old] = [path.stat().st_mtime_ns for path in Path(config.output, "results").iterdir()]
    removed: list[str] = []

    def stop_at_the_third(uri: str) -> None:
        removed.append(uri)
        if len(removed) == 3:
            raise KeyboardInterrupt
        remove(uri)

    with monkeypatch.context() as patch, make_plan(anew) as plan:
        patch.setattr("segray.bulk.plan.remove", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            plan.claim()
    assert list(Path(config.output, "results").iterdir())

    run(anew)

    assert all(path.stat().st_mtime_ns != old for path in Path(config.output, "results").iterdir())


def test_a_second_run_at_the_same_time_is_refused(images: Path, config: SegmentConfig) -> None:
    refused = pytest.raises(InputError, match="another run is at work on this output")
    with make_plan(config), refused:
        plan_only(config)
    assert counts(run(config)[0]) == (4, 4, 0)


def test_an_image_that_vanished_is_an_error_of_fetching(
    s3: Callable[[str], str], bundle_uri: str
) -> None:

    bucket = s3("vanishing")
    for name in ("stays.png", "goes.png"):
        write_bytes(f"{bucket}/{name}", GOOD["deep/er/a.png"])
    config = SegmentConfig(model=bundle_uri, images=bucket, output=f"{s3('vanished')}/out")
    with make_plan(config) as plan:
        # The search lists it again, and has the size and the ETag of the first listing no more.
        listed = next(plan.search.list_and_record(0, plan.done, lambda found: None))
        remove(f"{bucket}/goes.png")
        pipeline = Pipeline(PipelineConfig.of(plan, 1), plan.predictor_loader(1)(), Tally())
        pipeline.segment(listed)
    [row] = rows(config.output, "errors")
    assert (row["stage"], row["error"]) == ("fetch", "NotFound")


def test_model_size_and_limit_from_disk_to_disk(bundle_uri: str, tmp_path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(GOOD["a.jpg"])
    config = SegmentConfig(
        model=bundle_uri,
        images=str(tmp_path),
        output=str(tmp_path.parent / f"{tmp_path.name}-out"),
        mask_size="model",
        limit=3,
    )
    summary, _ = run(config)
    assert summary.census.segmented == 3
    for row in rows(config.output, "results"):
        assert decode_mask(row["mask"]["bytes"]).shape == (64, 64)
        assert (row["width"], row["height"]) == (90, 60)


def test_an_output_with_something_else_is_refused(bundle_uri: str, tmp_path) -> None:
    (tmp_path / "holiday.txt").write_text("dear diary")
    config = SegmentConfig(model=bundle_uri, images=str(tmp_path), output=str(tmp_path))
    with pytest.raises(InputError, match=r"no segmentation \(holiday\.txt\)"):
        plan_only(config)


def test_a_folder_without_images_is_refused(bundle_uri: str, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.md").write_text("no pictures")
    config = SegmentConfig(
        model=bundle_uri, images=str(tmp_path / "in"), output=str(tmp_path / "out")
    )
    with pytest.raises(InputError, match=r"no image found in .*/in: 1 with another suffix"):
        plan_only(config)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("on_ray", [True, False])
def test_an_output_that_cannot_be_written_is_named(
    bundle_uri: str, tmp_path: Path, on_ray: bool
) -> None:
    """On Ray the write fails in a task, far from the driver; the user sees one line."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(GOOD["a.jpg"])
    config = SegmentConfig(
        model=bundle_uri, images=str(tmp_path / "in"), output=str(tmp_path / "out")
    )
    with make_plan(config) as plan:
        plan.claim()
    (tmp_path / "out" / "results").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"cannot .*out/results") as caught:
        run(config, on_ray)
    assert len(str(caught.value).splitlines()) == 1


def test_no_partial_file_is_left(config: SegmentConfig) -> None:
    run(config)
    output = Path(config.output)
    assert not list(output.rglob(f"{PARTIAL}*"))
    found = [path.name for path in output.rglob("*") if path.is_file()]
    assert all(name.endswith((".parquet", ".json", "report.html")) for name in found)


def test_a_predictor_that_is_killed_loses_nothing(
    ray_session: None, images: Path, config: SegmentConfig, tmp_path: Path
) -> None:
    """It is started again, and each image has one row."""
    for number in range(4, 60):
        (images / f"{number}.jpg").write_bytes(encode(draw(30, 40, number), "JPEG"))
    mark = tmp_path / "killed"

    class KilledOnce:
        """A predictor whose process is killed in its second batch."""

        def __init__(self, load: Callable[[], Predictor]) -> None:
            self._predictor, self._batches = load(), 0

        def predict(self, pictures: np.ndarray) -> np.ndarray:
            self._batches += 1
            if self._batches == 2 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return self._predictor.predict(pictures)

    config = dataclasses.replace(config, batch_size=4, workers=1)
    with make_plan(config) as plan:
        segment_on_ray(plan, partial(KilledOnce, plan.predictor_loader(1)))
    assert mark.exists()
    uris = [row["uri"] for row in rows(config.output, "results")]
    assert sorted(uris) == sorted(str(path) for path in images.iterdir())
    assert rows(config.output, "errors") == []


def test_an_image_that_ends_each_process_is_an_error(
    ray_session: None, images: Path, config: SegmentConfig
) -> None:
    """As by a fault in a library. It is found by itself, and the others have their rows."""
    for number in range(4, 60):
        (images / f"{number}.jpg").write_bytes(encode(draw(30, 40, number), "JPEG"))
    deadly = images / "deadly.png"
    deadly.write_bytes(encode(np.full((30, 40, 3), 255, np.uint8), "PNG"))

    class Killed:
        """A predictor whose process is killed by an image that is white all over."""

        def __init__(self, load: Callable[[], Predictor]) -> None:
            self._predictor = load()

        def predict(self, pictures: np.ndarray) -> np.ndarray:
            if (pictures == 255).all(axis=(1, 2, 3)).any():
                os.kill(os.getpid(), signal.SIGKILL)
            return self._predictor.predict(pictures)

    config = dataclasses.replace(config, batch_size=4, workers=1)
    with make_plan(config) as plan:
        segment_on_ray(plan, partial(Killed, plan.predictor_loader(1)))

    [error] = rows(config.output, "errors")
    assert (error["uri"], error["stage"]) == (str(deadly), "process")
    uris = [row["uri"] for row in rows(config.output, "results")]
    assert sorted([*uris, str(deadly)]) == sorted(str(path) for path in images.iterdir())


def test_every_predictor_of_a_cluster_is_at_work(
    ray_session: None, bundle_uri: str, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    # Work for longer than a second predictor may take to start on a busy machine.
    picture = encode(draw(600, 800, 0), "JPEG")
    for number in range(400):
        (folder / f"{number}.jpg").write_bytes(picture)
    output = str(tmp_path / "out")

    run(SegmentConfig(model=bundle_uri, images=str(folder), output=output, workers=2), on_ray=True)

    predictors = json.loads(read_bytes(f"{output}/run.json"))["predictors"]
    assert len(predictors) == 2
    assert sum(predictors.values()) == 400
    assert min(predictors.values()) >= 20


def test_an_image_of_more_than_max_pixels_is_an_error(bundle_uri: str, tmp_path: Path) -> None:
    for width in (40, 41):
        write_bytes(f"{tmp_path}/in/{width}.png", encode(draw(50, width, 0), "PNG"))
    config = SegmentConfig(
        model=bundle_uri,
        images=f"{tmp_path}/in",
        output=f"{tmp_path}/out",
        workers=0,
        max_pixels=2000,
    )

    summary, _ = run(config)

    assert counts(summary) == (2, 1, 1)
    [error] = rows(config.output, "errors")
    assert error["uri"] == f"{tmp_path}/in/41.png"
    run(dataclasses.replace(config, max_pixels=2050, retry_errors=True))
    assert rows(config.output, "errors") == []


def test_a_large_tiff_is_segmented_in_rows_and_a_damaged_one_is_an_error(
    bundle_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = draw(200, 150, 3)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, picture, tile=(32, 32), compression="zlib", photometric="rgb")
    content = buffer.getvalue()
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        last = file.pages[0].dataoffsets[-1]
    write_bytes(f"{tmp_path}/in/good.tif", content)
    write_bytes(
        f"{tmp_path}/in/damaged.tif", content[: last + 1] + b"\xff" * 9 + content[last + 10 :]
    )
    write_bytes(f"{tmp_path}/in/small.png", encode(draw(50, 40, 4), "PNG"))
    model = change_bundle(bundle_uri, tmp_path, fit="tile")
    expected = segray.load(model).segment(picture)
    monkeypatch.setattr("segray.pixels.tiff.MAX_PIXELS", 10_000)
    output = f"{tmp_path}/out"
    summary, _ = run(SegmentConfig(model=model, images=f"{tmp_path}/in", output=output, workers=0))
    assert counts(summary) == (3, 2, 1)
    masks = {row["uri"]: decode_mask(row["mask"]["bytes"]) for row in rows(output, "results")}
    np.testing.assert_array_equal(masks[f"{tmp_path}/in/good.tif"], expected)
    [error] = rows(output, "errors")
    assert (error["uri"], error["stage"]) == (f"{tmp_path}/in/damaged.tif", "decode")

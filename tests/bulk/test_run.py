"""Segmentation runs on a real Ray and a real S3 endpoint."""

import dataclasses
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import segray
from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.pixels.masks import decode_mask
from segray.storage.tables import ERRORS_SCHEMA, MANIFEST_SCHEMA, results_schema, table_uris
from segray.storage.uri import file_system, join_uri, read_bytes, remove, write_bytes
from tests.support import encode

pytestmark = pytest.mark.usefixtures("ray_session")


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


def run(config: SegmentConfig):
    """What jobs/segment.py does, and the lines that it would print."""
    from segray.bulk.run import segment

    lines: list[str] = []
    summary = segment(make_plan(config, lines.append), lines.append)
    return summary, lines


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


@pytest.fixture(scope="module")
def finished(bucket: str, bundle_uri: str):
    config = SegmentConfig(
        model=bundle_uri, images=f"{bucket}/in", output=f"{bucket}/out", batch_size=4
    )
    summary, lines = run(config)
    return config, summary, lines


def test_every_image_has_one_row_in_results_or_errors(finished) -> None:
    config, summary, _ = finished
    uris = [row["uri"] for row in rows(config.output, "results")]
    assert sorted(uris) == sorted(f"s3://photos/in/{key}" for key in GOOD)
    failed = [row["uri"] for row in rows(config.output, "errors")]
    assert sorted(failed) == sorted(f"s3://photos/in/{key}" for key in BAD)
    assert (summary.listed, summary.segmented, summary.failed) == (11, 8, 3)


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
    assert "found 11 images; 1 other files are left out" in lines


def test_record_has_counts_and_no_secret(finished) -> None:
    config, *_ = finished
    text = read_bytes(join_uri(config.output, "run.json")).decode()
    record = json.loads(text)
    assert record["counts"] == {"listed": 11, "segmented": 8, "failed": 3, "processed": 11}
    assert record["images_per_second"] > 0
    assert sum(record["shares"].values()) == pytest.approx(1)
    assert "test-secret" not in text
    assert "test-key" not in text


def test_again_does_only_what_is_new_or_changed(finished, bucket: str) -> None:
    config, *_ = finished
    config = dataclasses.replace(config, output=f"{bucket}/again")
    run(config)
    before = table_uris(join_uri(config.output, "results"))
    assert run(config)[0].processed == 0

    write_bytes(f"{bucket}/in/new.png", encode(draw(9, 9, 10), "PNG"))
    write_bytes(f"{bucket}/in/a.jpg", encode(draw(70, 70, 11), "JPEG"))
    summary, _ = run(config)
    assert (summary.processed, summary.listed, summary.segmented) == (2, 12, 9)
    assert set(before) < set(table_uris(join_uri(config.output, "results")))
    new = [row for row in rows(config.output, "results") if row["uri"].endswith("in/a.jpg")]
    assert sorted(row["height"] for row in new) == [60, 70]  # the old row is of an old id

    write_bytes(f"{bucket}/in/empty.jpg", GOOD["a.jpg"])
    write_bytes(f"{bucket}/in/text.png", BAD["text.png"])
    summary, _ = run(dataclasses.replace(config, retry_errors=True))
    assert summary.failed == 2
    failed = [row["uri"].rpartition("/")[2] for row in rows(config.output, "errors")]
    # One row each, and the one of the object that empty.jpg was before.
    assert sorted(failed) == ["cut.jpg", "empty.jpg", "text.png"]
    remove(f"{bucket}/in/new.png")
    assert run(config)[0].listed == 11


def test_an_image_that_vanished_is_an_error_of_fetching(
    s3: Callable[[str], str], bundle_uri: str
) -> None:
    from segray.bulk.run import segment

    bucket = s3("vanishing")
    for name in ("stays.png", "goes.png"):
        write_bytes(f"{bucket}/{name}", GOOD["deep/er/a.png"])
    config = SegmentConfig(model=bundle_uri, images=bucket, output=f"{s3('vanished')}/out")
    plan = make_plan(config, print)
    remove(f"{bucket}/goes.png")
    summary = segment(plan, print)
    assert (summary.segmented, summary.failed) == (1, 1)
    [row] = rows(config.output, "errors")
    assert (row["stage"], row["error"]) == ("fetch", "FileNotFoundError")


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
    assert summary.segmented == 3
    for row in rows(config.output, "results"):
        assert decode_mask(row["mask"]["bytes"]).shape == (64, 64)
        assert (row["width"], row["height"]) == (90, 60)
    with pytest.raises(InputError, match="made with mask size model, and this run has original"):
        make_plan(dataclasses.replace(config, mask_size="original"), print)


def test_an_output_with_something_else_is_refused(bundle_uri: str, tmp_path) -> None:
    (tmp_path / "holiday.txt").write_text("dear diary")
    config = SegmentConfig(model=bundle_uri, images=str(tmp_path), output=str(tmp_path))
    with pytest.raises(InputError, match=r"no segmentation \(holiday\.txt\)"):
        make_plan(config, print)


def test_a_folder_without_images_is_refused(bundle_uri: str, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.md").write_text("no pictures")
    config = SegmentConfig(
        model=bundle_uri, images=str(tmp_path / "in"), output=str(tmp_path / "out")
    )
    with pytest.raises(InputError, match=r"no image found below .*none of its 1 files"):
        make_plan(config, print)


def test_an_output_that_cannot_be_written_is_named(bundle_uri: str, tmp_path) -> None:
    """The write fails in a task, far from the driver; the user sees one line all the same."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(GOOD["a.jpg"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results").write_text("a file where a folder should be")
    config = SegmentConfig(
        model=bundle_uri, images=str(tmp_path / "in"), output=str(tmp_path / "out")
    )
    with pytest.raises(InputError, match=r"cannot write .*out/results/") as caught:
        run(config)
    assert len(str(caught.value).splitlines()) == 1


def test_no_partial_file_is_left(finished) -> None:
    config, *_ = finished
    found = file_system(config.output).find(config.output)
    assert all(name.endswith((".parquet", "run.json")) for name in found)

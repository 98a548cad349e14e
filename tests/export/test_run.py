"""Exports of segmentations on disk and in S3, in this process and on a real Ray."""

import dataclasses
import io
import json
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image
from pycocotools.coco import COCO

from segray.errors import InputError
from segray.export.config import ExportConfig
from segray.export.run import ExportSummary, export
from segray.export.stream import write_stream
from segray.pixels.masks import encode_mask
from segray.storage.files import read_bytes, remove, write_bytes
from segray.storage.listing import Entry, list_entries, relative_key
from segray.storage.tables import MANIFEST_SCHEMA, write_table
from segray.storage.uri import join_uri
from tests.endpoints.stores import asking
from tests.segmentations import LABELS, Made, make_segmentation
from tests.support import draw_picture, encode, free_port

KEYS = [f"{folder}/{number}.jpg" for folder in ("cats", "dogs/small") for number in range(9)]
# A cat in two formats, and what else a bucket may hold.
ODD_KEYS = [
    "animals/cat.jpg",
    "animals/cat.png",
    "animals/cat",
    "animals/cat.png/dog.jpg",
    "Animals/cat.jpg",
    "../../outside.jpg",
    "a/../../../outside.jpg",
    "a//b.jpg",
    "/absolute.jpg",
    "back\\slash.jpg",
    "line\nbreak.jpg",
    "nul\0.jpg",
    "50% off?.jpg",
    "a%2Fb.jpg",
    "a/b.jpg",
    "config.json/x.jpg",
    ".export/x.jpg",
    "Katze 猫 ä.jpg",
    "a\u0308.jpg",
    "\u00e4.jpg",
    f"{'n' * 250}.jpg",
    f"{'n' * 251}.jpg",
    "/".join(["deep"] * 203) + ".jpg",
]


def run(made: Made, output: str, format: str, **settings: Any) -> ExportSummary:
    """What jobs/export.py does, but for its last lines and its exit status."""
    config = ExportConfig(results=made.uri, output=output, format=format, **settings)

    def start_ray() -> None:
        assert settings.get("workers"), "Ray was started for a few masks"

    return export(config, start_ray)


def exported(output: str) -> dict[str, str]:
    """The URIs of the exported files, by their keys."""
    entries = list_entries(output)
    keys = {relative_key(output, entry.uri): entry.uri for entry in entries}
    return {key: uri for key, uri in keys.items() if key.endswith((".png", ".jpg"))}


def read_mask(uri: str, mode: str = "L") -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(read_bytes(uri))) as image:
        assert image.mode == mode
        return np.asarray(image)


def check_masks(made: Made, output: str, mode: str = "L") -> None:
    """Every image of the manifest has its mask, under its own name, and nothing else is there."""
    found = exported(output)
    assert sorted(found) == sorted(
        f"{entry.uri.removeprefix(made.images + '/')}.png" for entry in made.entries
    )
    for entry in made.entries:
        uri = found[f"{entry.uri.removeprefix(made.images + '/')}.png"]
        assert np.array_equal(read_mask(uri, mode), made.masks[entry.uri])


def check_annotations(made: Made, output: str, tmp_path: Path) -> None:
    """pycocotools finds every pixel of every mask, and nothing else."""
    file = tmp_path / "fetched.json"
    file.write_bytes(read_bytes(join_uri(output, "annotations.json")))
    coco = COCO(str(file))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(LABELS.names)
    images = coco.loadImgs(coco.getImgIds())
    masks = {f"{made.images}/{image['file_name']}": image for image in images}
    assert set(masks) == {entry.uri for entry in made.entries}
    assert len(images) == len(masks)
    for uri, image in masks.items():
        assert (image["height"], image["width"]) == made.masks[uri].shape
        classes = np.full(made.masks[uri].shape, 255)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            region = coco.annToMask(annotation).astype(bool)
            assert annotation["iscrowd"] == 1
            assert annotation["area"] == np.count_nonzero(region)
            x, y, width, height = annotation["bbox"]
            assert region[y : y + height, x : x + width].sum() == region.sum()
            classes[region] = annotation["category_id"] - 1
        assert np.array_equal(classes, made.masks[uri])


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, s3: Callable[[str], str]) -> str:
    """An empty place."""
    if request.param == "disk":
        return str(tmp_path / "place")
    return s3(f"export-{zlib.crc32(request.node.name.encode())}")


def test_each_mask_is_a_file_and_a_second_run_writes_what_is_missing(folder: str) -> None:
    made = make_segmentation(folder, KEYS)
    output = f"{folder}/masks"
    summary = run(made, output, "png")
    assert (summary.masks, summary.written, summary.skipped) == (18, 18, 0)
    check_masks(made, output)
    before = {entry.uri: entry.etag for entry in list_entries(output)}

    assert run(made, output, "png").written == 0
    assert {entry.uri: entry.etag for entry in list_entries(output)} == before

    lost = sorted(exported(output).values())[2:5]
    for uri in lost:
        remove(uri)
    assert run(made, output, "png").written == 3
    check_masks(made, output)
    if not output.startswith("s3://"):  # its ETags are of the content, a disk's of the time
        after = {entry.uri: entry.etag for entry in list_entries(output)}
        assert {uri for uri in before if after[uri] != before[uri]} == set(lost)


def test_every_program_reads_class_ids(tmp_path: Path) -> None:
    """TensorFlow, and Keras with it, reads the greys of a palette's colours."""
    import tensorflow as tf

    made = make_segmentation(str(tmp_path), KEYS[:3])
    run(made, f"{tmp_path}/masks", "png")
    check_masks(made, f"{tmp_path}/masks")
    for entry in made.entries:
        png = read_bytes(f"{tmp_path}/masks/{entry.uri.removeprefix(made.images + '/')}.png")
        ids = tf.io.decode_png(png, channels=1)[..., 0].numpy()
        assert np.array_equal(ids, made.masks[entry.uri])


def test_a_palette_shows_the_classes_in_their_colours(tmp_path: Path) -> None:
    made = make_segmentation(str(tmp_path), KEYS[:3])
    output = f"{tmp_path}/masks"
    run(made, output, "png", palette=True)
    check_masks(made, output, "P")
    for uri in exported(output).values():
        colours = np.array(LABELS.palette)[read_mask(uri, "P")]
        with Image.open(uri) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), colours)
    with pytest.raises(InputError, match="palette"):
        run(made, output, "png")


def test_new_and_changed_images_are_exported_and_gone_ones_are_not(
    folder: str, lines: list[str]
) -> None:
    made = make_segmentation(folder, KEYS)
    output = f"{folder}/masks"
    run(made, output, "png")
    first = dict(made.masks)
    first_entries = list(made.entries)

    made.add([*KEYS[:4], "new/one.jpg"], version=1)
    made.list(made.entries[:10] + made.entries[11:])
    summary = run(made, output, "png")
    assert (summary.masks, summary.written) == (18, 5)
    assert any(line.startswith("1 files of images that no longer exist are left") for line in lines)
    made.list([*made.entries, first_entries[10]])
    check_masks(made, output)
    assert run(made, output, "png").written == 0

    # Back to the first version, whose rows are still there.
    made.masks |= first
    made.list(first_entries)
    summary = run(made, output, "png")
    assert (summary.masks, summary.written) == (18, 4)
    remove(exported(output)["new/one.jpg.png"])
    check_masks(made, output)


def test_odd_names_stay_inside_and_apart(folder: str, tmp_path: Path) -> None:
    made = make_segmentation(folder, ODD_KEYS, images="s3://bucket/photos")
    output = f"{folder}/deep/down/masks"
    assert run(made, output, "png").written == len(ODD_KEYS)
    assert run(made, output, "png").written == 0
    found = exported(output)
    assert len(found) == len(ODD_KEYS)
    read = {unquote(key.removesuffix(".png")): uri for key, uri in found.items()}
    cut = [key for key in ODD_KEYS if key not in read]
    assert cut == ([f"{'n' * 250}.jpg", f"{'n' * 251}.jpg"] + ODD_KEYS[-1:] * (folder[0] == "s"))
    for key in set(ODD_KEYS) - set(cut):
        assert np.array_equal(read_mask(read[key]), made.masks[f"s3://bucket/photos/{key}"])
    # And nothing is anywhere else.
    others = {entry.uri for entry in list_entries(folder)} - set(found.values())
    assert all(uri.startswith((made.uri, f"{output}/config.json")) for uri in others)
    if folder[0] == "/":
        assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_images_of_several_buckets_are_told_apart_by_them(tmp_path: Path) -> None:
    made = make_segmentation(str(tmp_path), ["a/x.jpg"], images="s3://one")
    made.images = "s3://two"
    made.add(["a/x.jpg"], version=1)
    made.images = "/disk"
    made.add(["a/x.jpg"], version=2)
    output = str(tmp_path / "masks")
    assert run(made, output, "png").written == 3
    assert sorted(exported(output)) == ["disk/a/x.jpg.png", "one/a/x.jpg.png", "two/a/x.jpg.png"]
    made.images = "s3://disk"
    made.add(["a/x.jpg"], version=3)
    with pytest.raises(InputError) as error:
        run(made, output, "png")
    for part in ("/disk/a/x.jpg", "s3://disk/a/x.jpg", "disk/a/x.jpg.png", "rename"):
        assert part in str(error.value)
    assert len(exported(output)) == 3


def test_a_row_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    made = make_segmentation(str(tmp_path), KEYS)
    made.write_rows(made.entries[2:9], name="again")
    assert run(made, str(tmp_path / "masks"), "png").written == 18
    assert run(made, str(tmp_path / "coco"), "rle").written == 18
    check_masks(made, str(tmp_path / "masks"))
    check_annotations(made, str(tmp_path / "coco"), tmp_path)


def test_a_segmentation_is_exported_only_when_its_last_run_is_finished(tmp_path: Path) -> None:
    """Until then its manifest may have two versions of an image."""
    made = make_segmentation(str(tmp_path), KEYS)
    changed = Entry(made.entries[0].uri, 7, "another version")
    made.masks[changed.uri] = made.masks[changed.uri][::-1]
    older = [*made.entries[1:], changed]
    rows = [dataclasses.asdict(entry) | {"id": entry.id} for entry in older]
    manifest = f"{made.uri}/manifest/older-00000.parquet"
    write_table(manifest, pa.Table.from_pylist(rows, MANIFEST_SCHEMA))
    made.write_rows([changed], name="older")
    record = read_bytes(f"{made.uri}/run.json")
    remove(f"{made.uri}/run.json")
    with pytest.raises(InputError, match=r"segmented is not finished .*jobs/segment\.py"):
        run(made, str(tmp_path / "masks"), "png")
    assert not (tmp_path / "masks").exists()

    remove(manifest)
    write_bytes(f"{made.uri}/run.json", record)
    assert run(made, str(tmp_path / "masks"), "png").masks == 18


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_settings_that_say_nothing_are_refused(tmp_path: Path, text: str) -> None:
    made = make_segmentation(str(tmp_path), KEYS[:1])
    write_bytes(f"{made.uri}/config.json", text.encode())
    with pytest.raises(InputError, match=r"config\.json is no record of a segmentation"):
        run(made, str(tmp_path / "masks"), "png")


def test_annotations_are_those_of_the_masks_and_grow(folder: str, tmp_path: Path) -> None:
    made = make_segmentation(folder, ODD_KEYS[:6], images="s3://bucket/photos")
    output = f"{folder}/coco"
    assert run(made, output, "rle").written == 6
    check_annotations(made, output, tmp_path)
    before = list_entries(output)
    assert run(made, output, "rle").written == 0
    assert list_entries(output) == before

    first_entries, first = list(made.entries), dict(made.masks)
    made.add(["new/one.jpg", ODD_KEYS[0]], version=1)
    made.list(made.entries[:2] + made.entries[3:])
    assert run(made, output, "rle").written == 2
    check_annotations(made, output, tmp_path)

    made.masks |= first
    made.list(first_entries)
    assert run(made, output, "rle").written == 0
    check_annotations(made, output, tmp_path)
    remove(f"{output}/annotations.json")
    run(made, output, "rle")
    check_annotations(made, output, tmp_path)


def test_small_masks_are_annotated_at_the_image_s_size(tmp_path: Path) -> None:
    made = make_segmentation(str(tmp_path), ["a.jpg"])
    [entry] = made.entries
    small = made.masks[entry.uri]
    made.masks[entry.uri] = np.repeat(np.repeat(small, 2, axis=0), 3, axis=1)
    png = encode_mask(small, LABELS.palette)
    made.write_rows([entry], mask={"bytes": png, "path": "a.png"})
    run(made, str(tmp_path / "coco"), "rle")
    check_annotations(made, str(tmp_path / "coco"), tmp_path)


def write_images(made: Made, keys: list[str]) -> None:
    """Write images, and put all into manifest and results as they are listed."""
    for key in keys:
        uri = f"{made.images}/{key}"
        height, width = made.masks[uri].shape
        write_bytes(uri, encode(draw_picture(height, width, len(key)), "PNG"))
    listed = list_entries(made.images)
    made.list(listed)
    made.write_rows(listed, name="listed")


def test_overlays_are_drawn_and_what_cannot_be_is_listed(folder: str) -> None:
    made = make_segmentation(folder, KEYS)
    write_images(made, KEYS)
    remove(f"{made.images}/{KEYS[0]}")
    height, width = made.masks[f"{made.images}/{KEYS[1]}"].shape
    write_bytes(f"{made.images}/{KEYS[1]}", encode(draw_picture(height, width, 99), "PNG"))
    output = f"{folder}/overlays"
    summary = run(made, output, "overlay")
    assert (summary.masks, summary.written, summary.skipped) == (18, 16, 2)
    assert set(exported(output)) == {f"{key}.jpg" for key in KEYS[2:]}
    lines = [json.loads(line) for line in read_bytes(f"{output}/skipped.jsonl").splitlines()]
    assert [line["image"].removeprefix(f"{made.images}/") for line in lines] == KEYS[:2]
    assert "no such" in lines[0]["reason"]
    assert "changed" in lines[1]["reason"]
    for key in KEYS[2:]:
        with Image.open(io.BytesIO(read_bytes(f"{output}/{key}.jpg"))) as overlay:
            assert overlay.size == made.masks[f"{made.images}/{key}"].shape[::-1]
            overlay.load()

    # Those are tried again, and the others are not.
    write_images(made, KEYS[:2])
    summary = run(made, output, "overlay")
    assert (summary.masks, summary.written, summary.skipped) == (18, 2, 0)
    assert read_bytes(f"{output}/skipped.jsonl") == b""


def test_a_store_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segray.storage.objects.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("tests.segmentations.FILE_ROWS", 40)
    keys = [f"{number}.png" for number in range(40)]
    made = make_segmentation(str(tmp_path), keys, images="s3://nowhere/images")
    with (
        asking(f"http://127.0.0.1:{free_port()}"),
        pytest.raises(InputError, match=r"s3://nowhere/images/\d+\.png"),
    ):
        run(made, str(tmp_path / "overlays"), "overlay")


def test_an_overlay_is_of_the_image_that_was_segmented(tmp_path: Path) -> None:
    """Where the manifest has no ETag, the size in pixels has to do."""
    made = make_segmentation(str(tmp_path), ["a.png", "b.png"])
    for number, (uri, mask) in enumerate(made.masks.items()):
        picture = draw_picture(mask.shape[0] + number, mask.shape[1], 0)
        write_bytes(uri, encode(picture, "PNG"))
    entries = [dataclasses.replace(e, size=None, etag="") for e in made.entries]
    made.list(entries)
    made.write_rows(entries, name="unknown")
    summary = run(made, str(tmp_path / "overlays"), "overlay")
    assert (summary.written, summary.skipped) == (1, 1)
    assert (
        "has changed since it was segmented"
        in (tmp_path / "overlays" / "skipped.jsonl").read_text()
    )


@pytest.mark.parametrize("format", ["png", "rle", "overlay"])
def test_a_damaged_mask_is_one_failure(tmp_path: Path, format: str) -> None:
    made = make_segmentation(str(tmp_path), KEYS)
    write_images(made, KEYS)
    made.write_rows(made.entries[:1], name="0", mask={"bytes": b"text", "path": "x.png"})
    made.write_rows(made.entries[1:2], name="0", mask=None)
    output = str(tmp_path / "out")
    summary = run(made, output, format)
    assert (summary.masks, summary.written, summary.skipped) == (18, 16, 2)
    assert len((tmp_path / "out" / "skipped.jsonl").read_text().splitlines()) == 2


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("format", ["png", "rle", "overlay"])
def test_workers_of_ray_write_the_same(
    s3: Callable[[str], str], tmp_path: Path, format: str
) -> None:
    bucket = s3(f"ray-{format}")
    keys = [f"{number}.jpg" for number in range(150)]
    made = make_segmentation(bucket, keys)
    write_images(made, keys)
    remove(f"{made.images}/7.jpg")
    spread, alone = f"{bucket}/spread", f"{bucket}/alone"
    one = run(made, spread, format, workers=2)
    other = run(made, alone, format, workers=0)
    gone = 1 if format == "overlay" else 0
    assert (one.written, one.skipped) == (other.written, other.skipped) == (150 - gone, gone)
    if format == "rle":
        check_annotations(made, spread, tmp_path)
        check_annotations(made, alone, tmp_path)
    else:
        files = [{key: read_bytes(u) for key, u in exported(o).items()} for o in (spread, alone)]
        assert files[0] == files[1]
    assert run(made, spread, format, workers=2).written == 0


def test_what_cannot_be_written_ends_the_export_in_one_line(users_folder: Path) -> None:
    made = make_segmentation(str(users_folder), KEYS)
    output = users_folder / "masks"
    (output / "cats").mkdir(parents=True)
    (output / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no record of an export"):
        run(made, str(output), "png")
    (output / "config.json").unlink()
    (output / "cats").rmdir()
    run(made, str(output), "png")
    remove(f"{output}/cats/1.jpg.png")
    (output / "cats").chmod(0o555)
    with pytest.raises(InputError, match=r"cats/1.jpg.png: this user may not do that"):
        run(made, str(output), "png")
    (output / "cats").chmod(0o755)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"format": "rle"}, ["with format png", "rle"]),
        ({"results": "other"}, ["with results", "other"]),
        ({"format": "overlay"}, ["with format png"]),
    ],
)
def test_an_output_has_one_kind_of_export(
    tmp_path: Path, change: dict[str, str], parts: list[str]
) -> None:
    made = make_segmentation(str(tmp_path), KEYS)
    make_segmentation(str(tmp_path / "other"), KEYS)
    if "results" in change:
        change = {"results": str(tmp_path / "other" / "segmented")}
    config = ExportConfig(results=made.uri, output=str(tmp_path / "out"))
    export(config, lambda: None)
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(InputError) as error:
        export(dataclasses.replace(config, **change), lambda: None)
    assert "give another --output" in str(error.value)
    for part in parts:
        assert part in str(error.value)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", "fedcba9876543210", r"model 0123456789abcdef, and .* has model fedcba"),
        ("test_time_flip", True, "has test time flip True"),
        ("overlap", 0.5, "has overlap 0.5"),
    ],
)
def test_other_masks_of_the_same_images_are_another_export(
    tmp_path: Path, name: str, value: Any, message: str
) -> None:
    made = make_segmentation(str(tmp_path), KEYS)
    output = str(tmp_path / "out")
    run(made, output, "png")
    settings = json.loads(read_bytes(f"{made.uri}/config.json")) | {name: value}
    write_bytes(f"{made.uri}/config.json", json.dumps(settings).encode())
    with pytest.raises(InputError, match=message):
        run(made, output, "png")


def test_annotations_of_masks_that_are_all_damaged_are_none(tmp_path: Path) -> None:
    made = make_segmentation(str(tmp_path), KEYS)
    output = str(tmp_path / "out")
    run(made, output, "rle")
    made.add(KEYS, version=1)
    for file in Path(made.uri, "results").iterdir():
        file.unlink()
    made.write_rows(made.entries, mask=None)
    summary = run(made, output, "rle")
    assert (summary.written, summary.skipped) == (0, len(KEYS))
    document = json.loads(read_bytes(f"{output}/annotations.json"))
    assert (document["images"], document["annotations"]) == ([], [])


def test_a_stream_that_breaks_off_leaves_what_was_there(folder: str) -> None:
    uri = f"{folder}/file"
    content = os.urandom(1 << 20)
    with write_stream(uri) as file:
        for _ in range(70):  # over the size of one part of an upload
            file.write(content)
    assert read_bytes(uri) == content * 70
    with pytest.raises(ZeroDivisionError), write_stream(uri) as file:
        file.writelines(b"x" * ((1 << 20) + 0 // (70 - turn)) for turn in range(71))
    assert read_bytes(uri)[:100] == content[:100]
    assert [entry.uri for entry in list_entries(folder)] == [uri]


def test_the_program_of_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "outputs" / "export.md").read_text()
    [program] = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    made = make_segmentation(str(tmp_path), KEYS[:3])
    monkeypatch.chdir(tmp_path)
    run(made, "output/export/rle", "rle")
    names: dict[str, Any] = {}
    exec(compile(program, "docs/outputs/export.md", "exec"), names)
    assert names["region"].shape in {mask.shape for mask in made.masks.values()}

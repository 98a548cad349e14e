"""The gallery of a report: the sample and its pictures."""

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segray.bulk.candidates import SIDE
from segray.pixels.decoding import Picture
from segray.pixels.framing import Box
from segray.pixels.labels import Labels
from segray.pixels.masks import encode_mask
from segray.pixels.thumbnails import encode_thumbnail
from segray.storage.files import read_bytes, write_bytes
from segray.storage.tables import (
    GALLERY_SCHEMA,
    results_schema,
    write_table,
)
from segray.storage.uri import join_uri
from tests.bulk.report.outputs import (
    Output,
    digest,
    shares_of,
    text_of,
    tile_names,
)
from tests.support import logged_lines


def test_the_sample_has_what_is_worth_a_look(output: Output) -> None:
    rows = [output.add(f"/nowhere/{n:04}.jpg", n, (16, 12), picture=False) for n in range(2000)]
    output.write(rows_per_file=150)
    page = output.report()
    shown = tile_names(page)
    assert len(shown) == len(set(shown)) == 60
    assert "A sample: 60 of 2,000 images." in text_of(page)
    name_of = {row["id"]: row["uri"].rpartition("/")[2] for row in rows}
    worst = sorted(rows, key=lambda row: row["expected_iou"])
    assert {name_of[row["id"]] for row in worst[:12]} <= set(shown)
    for i in range(3):
        shares = {name_of[row["id"]]: shares_of(row, output.labels)[i] for row in rows}
        assert max(shares[name] for name in shown) == max(shares.values())
        assert min(shares[name] for name in shown) == min(shares.values())
    # The others come from everywhere.
    assert len({int(name[:4]) // 200 for name in shown}) == 10
    assert output.report() == page


def test_files_and_their_order_do_not_change_the_sample(output: Output, tmp_path: Path) -> None:
    for n in range(500):
        # No two shares or confidences are the same.
        mask = np.ones((1, 2000), dtype=np.uint8)
        mask[0, : n + 1] = 0
        mask[0, 1000 + n // 2 :] = 2
        sure = np.random.default_rng(n).uniform(0.5, 1, 3)
        output.add_mask(f"/nowhere/{n}.jpg", mask, sure)
    output.write(rows_per_file=33)
    other = Output(str(tmp_path / "other"), output.labels, output.listed, output.results[::-1])
    other.write(rows_per_file=400)
    shown, others = tile_names(output.report()), tile_names(other.report())
    assert len(set(shown) ^ set(others)) <= 4  # of those with equal shares, any will do


def test_the_sample_is_of_images_whose_pictures_were_kept(output: Output) -> None:
    for n in range(400):
        output.add(f"/nowhere/{n:03}.jpg", n, (16, 12), picture=n % 4 == 0)
    # Images that have changed since, or are gone.
    for n in range(0, 40, 4):
        output.listed.remove((digest(n), f"/nowhere/{n:03}.jpg"))
    output.pictures.append({"id": 5, "image": b"of an image without a row"})
    output.write()
    page = output.report()
    shown = tile_names(page)
    assert len(set(shown)) == 60
    assert {int(name[:3]) for name in shown} <= set(range(40, 400, 4))
    assert page.count('<img class="image"') == page.count('<img class="mask"') == 60
    assert "A sample: 60 of 390 images." in text_of(page)
    # Each has its own.
    tiles = dict(zip(shown, page.split('<li class="tile')[1:], strict=True))
    for picture in output.pictures[10:-1]:
        name = next(uri for id, uri in output.listed if id == picture["id"])[9:]
        if name in tiles:
            assert base64.b64encode(picture["image"]).decode() in tiles[name]


@pytest.mark.parametrize("left", ["no folder", "an empty folder", "pictures of other images"])
def test_without_pictures_there_are_the_masks(output: Output, left: str) -> None:
    for n in range(70):
        output.add(f"/nowhere/{n}.jpg", n, picture=False)
    if left == "pictures of other images":
        output.pictures.append({"id": 5, "image": b"of another"})
    output.write()
    if left == "an empty folder":
        Path(output.uri, "gallery").mkdir()
    page = output.report()
    assert len(set(tile_names(page))) == 60
    assert page.count('<img class="mask"') == page.count("<img") == 60
    assert "The pictures of the images are not there any more: these are the masks." in text_of(
        page
    )


@pytest.mark.parametrize("kind", ["damaged", "foreign", "empty"])
def test_a_file_of_pictures_that_is_of_no_use_is_passed_over(output: Output, kind: str) -> None:
    for n in range(6):
        output.add(f"/nowhere/{n}.jpg", n)
    output.write(rows_per_file=2)
    bad = join_uri(output.uri, "gallery", "000002.parquet")
    if kind == "foreign":
        write_table(bad, pa.table({"id": ["x"]}))
    else:
        write_bytes(bad, b"PAR1 not at all PAR1" if kind == "damaged" else b"")
    page = output.report()
    assert sorted(tile_names(page)) == ["0.jpg", "1.jpg", "4.jpg", "5.jpg"]
    assert page.count('<img class="image"') == 4
    [line] = output.lines
    assert line.startswith("the report does without some pictures: ")
    assert bad in line


def test_a_damaged_picture_does_not_stop_the_report(output: Output) -> None:
    for n in range(6):
        output.add(f"/nowhere/{n}.jpg", n)
    output.write(rows_per_file=2)
    bad = join_uri(output.uri, "gallery", "000002.parquet")
    # Wherever the beginning of a JPEG file is: in the data, and in statistics of it.
    write_bytes(bad, read_bytes(bad).replace(b"\xff\xd8\xff", b"\xff\xd8\xfe"))

    with logged_lines() as lines:
        page = output.report()

    assert page.count('<img class="image"') == 4
    assert any(bad in line for line in lines)


def test_a_damaged_mask_is_a_note(output: Output) -> None:
    for n, data in enumerate((b"", b"\x89PNG\r\n\x1a\n", None)):
        output.add(f"/nowhere/{n}.jpg", n)["mask"] = {"bytes": data, "path": None}
    output.add("/nowhere/whole.jpg", 5)
    output.results[2]["mask"] = None
    output.write()
    page = output.report()
    assert text_of(page).count("The mask is damaged.") == 3
    assert page.count('<img class="image"') == 4


def test_masks_of_the_model_s_size_are_laid_over_their_images(output: Output) -> None:
    row = output.add("/nowhere/wide.jpg", 0, (120, 60))
    row["mask"]["bytes"] = encode_mask(np.zeros((64, 64), np.uint8), output.labels.palette)
    output.write()
    page = output.report()
    sizes = re.findall(r'class="(?:image|mask)"[^>]*src="data:image/(\w+);base64,', page)
    assert sizes == ["jpeg", "png"]
    # An inline PNG begins with its width and height.
    data = base64.b64decode(re.findall(r'data:image/png;base64,([^"]+)"', page)[0])
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (120, 60)


def test_the_page_stays_small(output: Output) -> None:
    """Sixty pictures of noise, which nothing compresses, of twenty classes."""
    labels = Labels(tuple(f"class_{i}" for i in range(20)), tuple(range(20)))
    output.labels = labels
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    image = encode_thumbnail(Picture(noise, 400, 400, Box(0, 0, *noise.shape[:2])), SIDE)
    for n in range(60):
        output.add(f"/nowhere/{n}.jpg", n, (400, 400))
        output.pictures[-1]["image"] = image
    output.write()
    page = output.report()
    assert page.count("<img") == 120
    assert 1_000_000 < len(page) < 8_000_000


def test_a_large_output_is_read_without_its_masks(output: Output) -> None:
    """Twenty files of 500 rows, each with a mask of four kilobytes: forty megabytes in all.

    The pictures are twenty megabytes more.
    """
    rng = np.random.default_rng(0)
    template = pa.Table.from_pylist(
        [output.add("/nowhere/0.jpg", 0, picture=False)] * 500, results_schema(output.labels)
    )
    mask = output.results[0]["mask"]["bytes"]
    output.listed = [(n, f"/nowhere/{n}.jpg") for n in range(10_000)]
    output.results = []
    output.write()
    for file in range(20):
        masks = [{"bytes": mask + rng.bytes(4096), "path": None} for _ in range(500)]
        columns = {
            "id": pa.array(range(500 * file, 500 * file + 500), pa.int64()),
            "mask": pa.array(masks, template.schema.field("mask").type),
        }
        for name, column in columns.items():
            place = template.schema.get_field_index(name)
            template = template.set_column(place, template.schema.field(name), column)
        write_table(join_uri(output.uri, "results", f"{file:02}.parquet"), template)
        pictures = [{"id": 500 * file + n, "image": rng.bytes(50_000)} for n in range(20)]
        table = pa.Table.from_pylist(pictures, GALLERY_SCHEMA)
        write_table(join_uri(output.uri, "gallery", f"{file:02}.parquet"), table)

    del template, columns, masks, pictures, table
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        started = time.monotonic()
        page = output.report()
        seconds = time.monotonic() - started
        peak = pool.max_memory()
    finally:
        pa.set_memory_pool(before)
    assert "segmented 10,000 of 10,000 images" in text_of(page)
    assert "60 of 10,000 images" in text_of(page)
    assert page.count('<img class="image"') == 60
    assert peak < 12_000_000
    assert seconds < 20


def test_the_output_may_be_in_s3(s3: Callable[[str], str], labels: Labels) -> None:
    bucket = s3("report")
    output = Output(f"{bucket}/masks", labels)
    for n in range(5):
        output.add(f"{bucket}/pets/{n}.jpg", n)
    output.fail(f"{bucket}/pets/bad.jpg", "decode", "OSError", "truncated")
    output.write(rows_per_file=2)
    page = output.report()
    assert "segmented 5 of 6 images" in text_of(page)
    assert page.count("<img") == 10
    assert output.lines == []

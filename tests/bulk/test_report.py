"""The report: a page that a browser opens with no network, and what it says."""

import base64
import html
import json
import os
import re
import select
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from segray.bulk.candidates import SIDE
from segray.bulk.census import take_census
from segray.bulk.manifest import Found, Manifest
from segray.bulk.progress import Moment
from segray.bulk.report import write_report
from segray.errors import InputError
from segray.pixels.decoding import Picture
from segray.pixels.labels import Labels
from segray.pixels.masks import encode_mask
from segray.pixels.thumbnails import encode_thumbnail
from segray.storage.files import read_bytes, write_bytes
from segray.storage.tables import (
    ERRORS_SCHEMA,
    GALLERY_SCHEMA,
    MANIFEST_SCHEMA,
    results_schema,
    write_table,
)
from segray.storage.uri import join_uri
from tests.support import draw_picture, encode

# Names that would take effect if they were not escaped; a folder may end in "<".
HOSTILE = (
    "<script>document.title='owned'<",
    "script> \"quoted\" & 'both' <img src=x onerror=alert(1)>.jpg",
)
UNICODE = "Füße_猫_\u202egpj.jpg"

RECORD = {
    "configuration": {"images": "s3://bucket/pets", "model": "s3://bucket/model", "limit": None},
    "model": "0123456789abcdef",
    "engine": "onnx",
    "versions": {"segray": "1.2.3"},
    "counts": {"processed": 44, "left_out": {"images": 44, "other": 3, "hidden": 0}},
    "seconds": 20.0,
    "images_per_second": 2.2,
}
TIMELINE = [Moment(10, 10, 0, 2_000_000), Moment(15, 30, 4, 8_000_000), Moment(20, 40, 4, 9e6)]

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)


def digest(number: int) -> int:
    """An id as those of images are: any 64 bits; each number has its own."""
    return number * 0x9E3779B97F4A7C15 % 2**64 - 2**63


@dataclass
class Output:
    """A segmentation made by a test; there are no images, but pictures of them."""

    uri: str
    labels: Labels
    listed: list[tuple[int, str]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def add(
        self, uri: str, seed: int, size: tuple[int, int] = (40, 30), picture: bool = True
    ) -> dict[str, Any]:
        """The row of an image of random shares and confidences, and its picture, if wanted."""
        rng = np.random.default_rng(seed)
        width, height = size
        if picture:
            image = encode(draw_picture(height, width, seed), "JPEG")
            self.pictures.append({"id": digest(len(self.listed)), "image": image})
        shares = rng.dirichlet(np.full(len(self.labels), 2 / len(self.labels)))
        shares[shares < 0.1] = 0  # so that not every image has every class
        mask = rng.choice(len(self.labels), (height, width), p=shares / shares.sum())
        return self.add_mask(uri, mask.astype(np.uint8), rng.uniform(0.4, 1, len(self.labels)))

    def add_mask(self, uri: str, mask: np.ndarray, sure: np.ndarray) -> dict[str, Any]:
        row = {
            "id": digest(len(self.listed)),
            "uri": uri,
            "width": mask.shape[1],
            "height": mask.shape[0],
            "mask": {"bytes": encode_mask(mask, self.labels.palette), "path": None},
            "model": RECORD["model"],
        }
        for i, name in enumerate(self.labels.names):
            pixels = int((mask == i).sum())
            row[f"pixels_{name}"] = pixels
            row[f"fraction_{name}"] = pixels / mask.size
            row[f"confidence_{name}"] = float(np.float32(sure[i])) if pixels else None
        self.listed.append((row["id"], uri))
        self.results.append(row)
        return row

    def fail(self, uri: str, stage: str, error: str, message: str) -> None:
        id = digest(len(self.listed))
        self.errors.append(
            {"id": id, "uri": uri, "stage": stage, "error": error, "message": message}
        )
        self.listed.append((id, uri))

    def write(self, rows_per_file: int = 16) -> None:
        """The files of the output, except for the report."""
        entries = [{"id": i, "uri": uri, "size": 1, "etag": "e"} for i, uri in self.listed]
        self._write("manifest", entries, MANIFEST_SCHEMA, max(1, len(entries)))
        self._write("results", self.results, results_schema(self.labels), rows_per_file)
        self._write("errors", self.errors, ERRORS_SCHEMA, rows_per_file)
        self._write("gallery", self.pictures, GALLERY_SCHEMA, rows_per_file)

    def _write(self, folder: str, rows: list[Any], schema: pa.Schema, per_file: int) -> None:
        for first in range(0, len(rows), per_file):
            table = pa.Table.from_pylist(rows[first : first + per_file], schema)
            write_table(join_uri(self.uri, folder, f"{first:06}.parquet"), table)

    def report(self, record: dict[str, Any] = RECORD, timeline: Any = TIMELINE) -> str:
        """The page."""
        ids = np.unique(np.array([id for id, _ in self.listed], dtype=np.int64))
        manifest = Manifest(ids, Found())
        census = take_census(self.uri, manifest, self.labels, False, self.told.append)
        write_report(self.uri, self.labels, census, record, timeline)
        return read_bytes(join_uri(self.uri, "report.html")).decode()


@pytest.fixture
def output(tmp_path: Path, labels: Labels) -> Output:
    return Output(str(tmp_path / "output"), labels)


def text_of(page: str) -> str:
    """What a reader sees of the page, in one line."""
    body = page.partition("<body>")[2].partition("<script>")[0].replace("<wbr>", "")
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def tile_names(page: str) -> list[str]:
    found = re.findall(r'<li class="tile[^"]*".*?<h3 title="[^"]*">(.*?)</h3>', page, re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]*>", "", name)) for name in found]


def shares_of(row: dict[str, Any], labels: Labels) -> list[float]:
    counts = [row[f"pixels_{name}"] for name in labels.names]
    return [count / sum(counts) for count in counts]


def confidence_of(row: dict[str, Any], labels: Labels) -> float:
    """The mean over all pixels of an image."""
    shares = shares_of(row, labels)
    sure = [row[f"confidence_{name}"] or 0 for name in labels.names]
    return sum(share * value for share, value in zip(shares, sure, strict=True))


# What the page says.


def test_it_states_the_run(output: Output) -> None:
    for n in range(4):
        output.add(f"{output.uri}/images/{n}.jpg", n)
    output.fail("s3://bucket/bad.jpg", "decode", "OSError", "truncated")
    output.write()
    text = text_of(output.report())
    for part in (
        "Segmentation of s3://bucket/pets",
        "segmented 4 of 5 images",
        "failed 1 20.0% of them",
        "images/s 2.20",
        "MB/s 0.450 9 MB read",
        "duration 20 s for 44 images",
        f"Output {output.uri}",
        "Model s3://bucket/model",
        "Digest 0123456789abcdef",
        "Engine onnx Left out 3 with another suffix",
        "segray 1.2.3",
        "All of 4 images.",
    ):
        assert part in text, part
    assert output.told == []


def test_shares_and_confidences_are_those_of_all_pixels(output: Output) -> None:
    rows = [output.add(f"/nowhere/{n}.jpg", n, (20 + n, 30), picture=False) for n in range(30)]
    output.write(rows_per_file=7)
    page = output.report()
    total = sum(row["width"] * row["height"] for row in rows)
    for name in output.labels.names:
        pixels = sum(row[f"pixels_{name}"] for row in rows)
        there = [row for row in rows if row[f"pixels_{name}"]]
        sure = sum(r[f"pixels_{name}"] * r[f"confidence_{name}"] for r in there) / pixels
        assert (
            f"{name} {100 * pixels / total:.1f}% {pixels:,} {100 * len(there) / 30:.1f}% {sure:.3f}"
            in text_of(page)
        )
        assert f'aria-label="histogram of {len(there)} images by share of {name}"' in page
        assert f'aria-label="histogram of {len(there)} images by confidence in {name}"' in page
        absent = 30 - len(there)
        assert 0 < absent < 30
        assert f"left out: {absent} images with none of it" in text_of(page)


def test_the_histograms_count_images(output: Output) -> None:
    for share in (0.1, 0.1, 0.1, 0.3, 1.0):
        mask = np.ones((10, 100), dtype=np.uint8)
        mask.ravel()[: round(1000 * share)] = 0
        output.add_mask("/nowhere/x.jpg", mask, np.array([0.52, 0.9, 0.9]))
    output.write()
    page = output.report()
    bars = dict(re.findall(r"<title>share of pet (\S+) to \S+: (\d+) image", page))
    assert bars == {"10.0%": "3", "30.0%": "1", "97.5%": "1"}
    bars = dict(re.findall(r"<title>confidence in pet (\S+) to \S+: (\d+) image", page))
    assert bars == {"0.500": "5"}
    assert "share of pet half of the images: 10.0% to 30.0%, median 10.0%" in text_of(page)


def test_only_the_manifest_counts_and_each_image_once(output: Output) -> None:
    for n in range(3):
        output.add(f"/nowhere/{n}.jpg", n, picture=False)
    old = output.add("/nowhere/replaced.jpg", 8, picture=False)
    output.listed.remove((old["id"], old["uri"]))
    output.results.insert(0, output.results[0])  # twice in a file
    output.results += output.results[:3]  # and in another one
    # Segmented after it had failed.
    failure = {"stage": "fetch", "error": "InputError", "message": "gone"}
    output.errors.append({"id": digest(2), "uri": "/nowhere/2.jpg", **failure})
    output.errors += 2 * [{"id": 77, "uri": "/nowhere/lost.jpg", **failure}]
    output.listed += [(77, "/nowhere/lost.jpg"), (78, "/nowhere/left.jpg")]
    output.write(rows_per_file=2)
    page = output.report()
    assert "segmented 3 of 5 images failed 1 20.0% of them left 1" in text_of(page)
    assert sorted(tile_names(page)) == ["0.jpg", "1.jpg", "2.jpg"]
    counted = [sum(row[f"pixels_{n}"] for row in output.results[1:4]) for n in output.labels.names]
    for name, pixels in zip(output.labels.names, counted, strict=True):
        assert re.search(rf"{name} \S+% {pixels:,} ", text_of(page))
    assert "InputError in fetch 1 /nowhere/lost.jpg gone" in text_of(page)


def test_errors_are_counted_by_stage_and_reason(output: Output) -> None:
    for n in range(7):
        output.fail(f"s3://bucket/cut_{n}.jpg", "decode", "OSError", f"truncated after {n} bytes")
    for n in range(12):
        output.fail(f"s3://bucket/none_{n}.jpg", "fetch", "OSError", "time-out")
    output.fail("s3://bucket/one.jpg", "decode", "DecodeError", "the file is empty")
    output.write()
    text = text_of(output.report())
    fetch, decode, other = (
        text.index(part)
        for part in ("OSError in fetch 12", "OSError in decode 7", "DecodeError in decode 1")
    )
    assert fetch < decode < other
    assert "5 of 12" in text[fetch:decode]
    assert "5 of 7" in text[decode:other]
    assert text.count("truncated after") == text.count("time-out") == 5
    for n in range(5):
        assert f"cut_{n}.jpg truncated after {n} bytes" in text
    assert "one.jpg the file is empty" in text
    assert "No image of" not in text


def test_countless_kinds_of_errors_and_endless_messages_are_cut(output: Output) -> None:
    for n in range(1500):
        output.fail(f"/nowhere/{n}.jpg", "decode", f"Kind{n}", "long " * 1000)
    output.write(rows_per_file=1500)
    page = output.report()
    assert len(re.findall(r"<summary><b>(?:Kind|all other)", page)) == 100
    assert "And 901 more kinds, 901 images" in text_of(page)
    assert "all other kinds 500" in text_of(page)
    assert len(page) < 200_000


def test_throughput_is_that_between_two_moments(output: Output) -> None:
    output.add("/nowhere/0.jpg", 0, picture=False)
    output.write()
    # 100 images in 10 s, and 1100 in as many.
    half, whole = Moment(10, 90, 10, 5_000_000), Moment(20, 1190, 10, 10_000_000)
    page = output.report(timeline=[half, whole])
    # Nothing is said by the start, nor by moments between two counts.
    idle = [Moment(0, 0, 0, 0), Moment(4, 0, 0, 0), half, Moment(15, 90, 10, 5_000_000), whole]
    assert page == output.report(timeline=idle)
    assert "<title>0 s to 10 s: 10 images/s</title>" in page
    assert "<title>10 s to 20 s: 110 images/s</title>" in page
    assert "<title>10 s to 20 s: 0.5 MB/s</title>" in page
    assert "images/s mean 60.0, highest 110" in text_of(page)


def test_a_day_s_timeline_becomes_a_short_curve(output: Output) -> None:
    output.add("/nowhere/0.jpg", 0, picture=False)
    output.write()
    timeline = [Moment(2.0 * n, 64 * n, 0, 64 * n * 10**5) for n in range(1, 43_201)]
    page = output.report(timeline=timeline)
    assert page.count("to 24 h 0 min: 32 images/s</title>") == 1
    assert page.count(" images/s</title>") == 80


def test_nothing_left_to_do_is_no_error(output: Output) -> None:
    output.add("/nowhere/0.jpg", 0, picture=False)
    output.write()
    record = RECORD | {"counts": {"processed": 0}, "seconds": 0.01}
    for timeline in ([], [Moment(0, 0, 0, 0)], [Moment(0, 0, 0, 0), Moment(0.01, 0, 0, 0)]):
        text = text_of(output.report(record, timeline))
        assert "in this run 0 images were left to do" in text
        assert "This run had no image left to do." in text
        assert "No image failed." in text


def test_all_images_may_have_failed(output: Output) -> None:
    output.fail("/nowhere/0.jpg", "decode", "OSError", "truncated")
    output.write()
    text = text_of(output.report())
    assert "segmented 0 of 1 image failed 1 100% of them" in text
    assert "pet in no image" in text
    assert "No images." in text


def test_the_record_may_be_a_bare_one(output: Output) -> None:
    output.write()
    assert "segmented 0 of 0 images" in text_of(output.report({}, []))


def test_a_file_that_is_no_results_file_is_named(output: Output) -> None:
    output.add("/nowhere/0.jpg", 0, picture=False)
    output.write()
    foreign = join_uri(output.uri, "results", "foreign.parquet")
    write_table(foreign, pa.table({"id": [1]}))
    with pytest.raises(InputError, match=r"results/foreign\.parquet has no column confidence_"):
        output.report()
    write_bytes(foreign, b"PAR1 not at all PAR1")
    with pytest.raises(InputError, match=r"cannot read .*results/foreign\.parquet"):
        output.report()


# The sample and its pictures.


def test_the_sample_has_what_is_worth_a_look(output: Output) -> None:
    rows = [output.add(f"/nowhere/{n:04}.jpg", n, (16, 12), picture=False) for n in range(2000)]
    output.write(rows_per_file=150)
    page = output.report()
    shown = tile_names(page)
    assert len(shown) == len(set(shown)) == 60
    assert "A sample: 60 of 2,000 images." in text_of(page)
    name_of = {row["id"]: row["uri"].rpartition("/")[2] for row in rows}
    by_confidence = sorted(rows, key=lambda row: confidence_of(row, output.labels))
    assert {name_of[row["id"]] for row in by_confidence[:12]} <= set(shown)
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
    [line] = output.told
    assert line.startswith("the report does without some pictures: ")
    assert bad in line


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
    image = encode_thumbnail(Picture(noise, 400, 400), SIDE)
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
    assert output.told == []


# The page in a browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A headless Chromium that logs its requests."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    assert all(programs), "install Debian's packages chromium and chromium-driver"
    # Selenium must not look for another browser, nor tell of this one.
    os.environ.update(SE_OFFLINE="true", SE_AVOID_STATS="true")
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs[0])
    for flag in _FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(programs[1]))
    try:
        driver.set_window_size(1280, 900)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, labels: Labels) -> Output:
    """Forty images, some of them of names that mean harm, and errors that do."""
    folder = tmp_path_factory.mktemp("gallery")
    output = Output(str(folder / "output"), labels)
    names = [f"image_{n:02}.jpg" for n in range(38)]
    for n, name in enumerate([*names, "/".join(HOSTILE), UNICODE]):
        output.add(f"{folder}/images/{name}", n, (60 + n, 80))
    output.fail(
        f"s3://bucket/{'/'.join(HOSTILE)}",
        "decode",
        "<b>OSError</b>",
        "</li></script><script>document.title='owned'</script>",
    )
    output.write()
    output.report(
        RECORD | {"configuration": {"images": "s3://bucket/</title><script>alert(2)</script>"}}
    )
    return output


@pytest.fixture
def page(browser: webdriver.Chrome, gallery: Output) -> webdriver.Chrome:
    """The page of the gallery, freshly opened with the network off."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what a test before has left
    browser.get(f"file://{gallery.uri}/report.html")
    return browser


def requested(browser: webdriver.Chrome) -> set[str]:
    """What the browser asked for since it was asked for this last, but for data within the page."""
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return {url for url in urls if not url.startswith("data:")}


def shown(browser: webdriver.Chrome) -> list[str]:
    """The names on the tiles that can be seen, in their order."""
    return browser.execute_script(
        "return Array.from(document.querySelectorAll('#gallery > li'))"
        ".filter((tile) => tile.getClientRects().length)"
        ".map((tile) => tile.querySelector('h3').textContent)"
    )


def name_of(row: dict[str, Any]) -> str:
    return row["uri"].partition("/images/")[2]


def element(browser: webdriver.Chrome, id_: str) -> Any:
    return browser.find_element(By.ID, id_)


def move(browser: webdriver.Chrome, id_: str, value: int) -> None:
    """Drag a slider to a value."""
    browser.execute_script(
        "arguments[0].value = arguments[1];"
        "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        element(browser, id_),
        value,
    )


def press(browser: webdriver.Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def test_it_opens_without_a_network(page: webdriver.Chrome, gallery: Output) -> None:
    assert requested(page) == {f"file://{gallery.uri}/report.html"}
    assert page.get_log("browser") == []
    widths = page.execute_script(
        "return Array.from(document.images, (image) => image.complete && image.naturalWidth)"
    )
    assert len(widths) == 80
    assert set(widths) == {width for n in range(40) for width in [60 + n]}
    assert element(page, "shown").text == "40 of 40 shown"
    assert len(shown(page)) == 40
    # The image and the mask are one upon the other.
    tile = page.find_element(By.CSS_SELECTOR, ".tile")
    image, mask = (tile.find_element(By.CLASS_NAME, name) for name in ("image", "mask"))
    assert image.rect == mask.rect
    assert mask.value_of_css_property("opacity") == "0.5"


def test_it_lets_nothing_out(browser: webdriver.Chrome, gallery: Output) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        browser.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
        )
        browser.get(f"file://{gallery.uri}/report.html")
        refused = browser.execute_async_script(
            """
            const [url, done] = arguments, refused = [];
            document.addEventListener("securitypolicyviolation", (event) => {
              refused.push(event.effectiveDirective);
              if (refused.length === 5) done(refused);
            });
            fetch(url).catch(() => {});
            new Image().src = url;
            const add = (name, attribute) => {
              const element = document.createElement(name);
              element[attribute] = url;
              document.body.append(element);
            };
            add("script", "src");
            navigator.sendBeacon(url, "1");
            const inline = document.createElement("script");
            inline.textContent = "document.title = 'owned'";
            document.body.append(inline);
            setTimeout(() => done(refused), 5000);
            """,
            url,
        )
        assert sorted(refused) == [
            "connect-src",
            "connect-src",
            "img-src",
            "script-src-elem",
            "script-src-elem",
        ]
        assert browser.title != "owned"
        assert not select.select([server], [], [], 1)[0], "something connected"


def test_names_and_messages_are_text(page: webdriver.Chrome) -> None:
    assert {"/".join(HOSTILE), UNICODE} <= set(shown(page))
    assert page.title == "Segmentation of s3://bucket/</title><script>alert(2)</script>"
    assert page.find_element(By.TAG_NAME, "h1").text.endswith(page.title.split(" of ")[1])
    errors = page.find_element(By.CSS_SELECTOR, "[aria-labelledby=errors]").text
    assert "<b>OSError</b>" in errors
    assert "</li></script><script>document.title='owned'</script>" in errors
    assert f"s3://bucket/{'/'.join(HOSTILE)}" in errors.replace("\n", "")
    assert len(page.find_elements(By.TAG_NAME, "script")) == 1


@pytest.mark.parametrize("class_id", [0, 1, 2])
def test_the_filters_do_as_they_say(page: webdriver.Chrome, gallery: Output, class_id: int) -> None:
    labels = gallery.labels
    name = labels.names[class_id]
    Select(element(page, "class")).select_by_visible_text(name)
    assert len(shown(page)) == 40

    def expect(low: int, high: int, least: int, most: int) -> set[str]:
        chosen = set()
        for row in gallery.results:
            share, sure = shares_of(row, labels)[class_id], row[f"confidence_{name}"]
            fits = (least, most) == (0, 100) if sure is None else least / 100 <= sure <= most / 100
            if low / 100 <= share <= high / 100 and fits:
                chosen.add(name_of(row))
        return chosen

    ends = ("share-low", "share-high", "confidence-low", "confidence-high")
    for values in ((20, 60, 0, 100), (0, 100, 60, 90), (10, 80, 50, 95), (0, 10, 0, 100)):
        for end, value in zip(ends, (0, 100, 0, 100), strict=True):
            move(page, end, value)
        for end, value in zip(ends, values, strict=True):
            move(page, end, value)
        found = shown(page)
        assert set(found) == expect(*values)
        assert 0 < len(found) < 40
        assert element(page, "shown").text == f"{len(found)} of 40 shown"
    assert element(page, "share").text == "0% to 10%"
    assert element(page, "confidence").text == "0.00 to 1.00"

    move(page, "confidence-high", 0)
    assert shown(page) == []
    assert element(page, "none").is_displayed()
    element(page, "reset").click()
    assert len(shown(page)) == 40
    assert not element(page, "none").is_displayed()
    assert not element(page, "reset").is_displayed()


def test_one_end_of_a_range_cannot_pass_the_other(page: webdriver.Chrome) -> None:
    move(page, "share-high", 40)
    move(page, "share-low", 70)
    assert element(page, "share").text == "40% to 40%"
    move(page, "share-high", 10)
    assert element(page, "share").text == "40% to 40%"


@pytest.mark.parametrize("class_id", [0, 2])
def test_the_orders_do_as_they_say(page: webdriver.Chrome, gallery: Output, class_id: int) -> None:
    labels, rows = gallery.labels, {name_of(row): row for row in gallery.results}
    name = labels.names[class_id]
    Select(element(page, "class")).select_by_visible_text(name)

    def share(tile: str) -> float:
        return shares_of(rows[tile], labels)[class_id]

    def sure(tile: str) -> float:
        value = rows[tile][f"confidence_{name}"]
        return 2 if value is None else value

    choice = Select(element(page, "sort"))
    assert choice.first_selected_option.text == "Least confident, all classes"
    at_first = [confidence_of(rows[tile], labels) for tile in shown(page)]
    assert at_first == sorted(at_first)
    for text, key in (
        ("Most of the class", lambda tile: -share(tile)),
        ("Least of the class", share),
        ("Least confident in the class", sure),
        ("Least confident, all classes", lambda tile: confidence_of(rows[tile], labels)),
    ):
        choice.select_by_visible_text(text)
        tiles = shown(page)
        keys = [key(tile) for tile in tiles]
        assert keys == sorted(keys), text
        assert len(set(tiles)) == 40
    # Those that are filtered out stay out, whatever the order.
    move(page, "share-low", 30)
    choice.select_by_visible_text("Most of the class")
    tiles = shown(page)
    assert [share(t) for t in tiles] == sorted(s for s in map(share, rows) if s >= 0.3)[::-1]


def test_tiles_say_what_they_show(page: webdriver.Chrome, gallery: Output) -> None:
    labels, rows = gallery.labels, {name_of(row): row for row in gallery.results}
    for tile in page.find_elements(By.CSS_SELECTOR, "#gallery > li")[:10]:
        row = rows[tile.find_element(By.TAG_NAME, "h3").get_property("textContent")]
        size = f"{row['width']} × {row['height']} px"  # noqa: RUF001
        assert tile.find_element(By.CLASS_NAME, "size").text == (
            f"{size}, confidence {confidence_of(row, labels):.3f}"
        )
        shares = dict(zip(labels.names, shares_of(row, labels), strict=True))
        there = sorted((n for n in labels.names if shares[n]), key=lambda n: -shares[n])
        said = [line.text.split() for line in tile.find_elements(By.CSS_SELECTOR, ".classes li")]
        assert said == [
            [n, f"{100 * shares[n]:.1f}%".replace("100.0", "100"), f"{row[f'confidence_{n}']:.3f}"]
            for n in there
        ]
        links = tile.find_elements(By.CSS_SELECTOR, "a, [href]")
        assert links == []


def test_a_class_that_is_not_there_is_said_to_be(page: webdriver.Chrome, gallery: Output) -> None:
    Select(element(page, "class")).select_by_visible_text("border")
    Select(element(page, "sort")).select_by_visible_text("Least of the class")
    tile = page.find_element(By.CSS_SELECTOR, "#gallery > li")
    assert tile.find_element(By.CLASS_NAME, "chosen").text == "border: 0.0%"


def test_the_views_show_image_mask_or_both(page: webdriver.Chrome) -> None:
    tile = page.find_element(By.CSS_SELECTOR, ".tile")
    image, mask = (tile.find_element(By.CLASS_NAME, name) for name in ("image", "mask"))
    choices = {c.get_attribute("value"): c for c in page.find_elements(By.NAME, "view")}

    def choose(view: str) -> tuple[bool, bool, float]:
        page.execute_script("arguments[0].click()", choices[view])
        opacity = float(mask.value_of_css_property("opacity"))
        return image.is_displayed(), mask.is_displayed(), opacity

    assert choose("image")[:2] == (True, False)
    assert choose("mask") == (False, True, 1)
    assert choose("beside") == (True, True, 1)
    assert mask.rect["x"] >= image.rect["x"] + image.rect["width"]
    assert mask.rect["height"] == image.rect["height"]
    assert choose("overlay") == (True, True, 0.5)
    move(page, "opacity", 80)
    assert choose("overlay") == (True, True, 0.8)
    assert image.rect == mask.rect


def test_the_keyboard_is_enough(page: webdriver.Chrome, gallery: Output) -> None:
    """Tab from the top of the page through all controls, and use each by its keys."""
    reached = []
    while "opacity" not in reached:
        press(page, Keys.TAB)
        active = page.switch_to.active_element
        name = active.get_attribute("id") or active.get_attribute("name") or active.tag_name
        assert name != "body", reached
        reached.append(name)
        # Each control shows that it has the focus; of the views, the label does.
        if name == "class":
            press(page, "pet")
        elif name == "share-low":
            press(page, *[Keys.ARROW_RIGHT] * 25)
        elif name == "share-high":
            press(page, *[Keys.ARROW_LEFT] * 30)
        elif name == "confidence-low":
            press(page, Keys.PAGE_UP, Keys.PAGE_UP, Keys.HOME)
        elif name == "sort":
            press(page, "Most")
        elif name == "view":
            press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    controls = ["class", "share-low", "share-high", "confidence-low", "confidence-high", "sort"]
    assert reached[-8:] == [*controls, "view", "opacity"]
    assert element(page, "share").text == "25% to 70%"
    assert element(page, "confidence").text == "0.00 to 1.00"
    assert element(page, "gallery").get_attribute("data-view") == "mask"
    pets = {name_of(row): shares_of(row, gallery.labels)[0] for row in gallery.results}
    expected = sorted((share for share in pets.values() if 0.25 <= share <= 0.7), reverse=True)
    assert [pets[name] for name in shown(page)] == expected
    assert expected

    press(page, Keys.TAB)
    assert page.switch_to.active_element == element(page, "reset")
    press(page, Keys.ENTER)
    assert len(shown(page)) == 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_the_window_and_the_scheme(
    browser: webdriver.Chrome, gallery: Output, scheme: str, width: int
) -> None:
    scheme_feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_feature)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(f"file://{gallery.uri}/report.html")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        body = browser.find_element(By.TAG_NAME, "body")
        brightness = [
            sum(int(n) for n in re.findall(r"\d+", body.value_of_css_property(name))[:3])
            for name in ("background-color", "color")
        ]
        assert (brightness[0] > brightness[1]) == (scheme == "light")
        assert abs(brightness[0] - brightness[1]) > 450
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_many_classes_are_still_a_page(browser: webdriver.Chrome, tmp_path: Path) -> None:
    labels = Labels(tuple(f"kind_{i}" for i in range(255)), tuple(range(255)))
    output = Output(str(tmp_path / "output"), labels)
    for n in range(60):
        output.add(f"{tmp_path}/images/{n}.jpg", n, (100, 100))
    output.write()
    assert len(output.report()) < 8_000_000
    browser.get(f"file://{output.uri}/report.html")
    assert browser.get_log("browser") == []
    assert len(shown(browser)) == 60
    rest = browser.find_elements(By.CSS_SELECTOR, "details > .distribution")
    assert len(rest) == 243
    assert not rest[0].is_displayed()
    name = "kind_77"
    Select(element(browser, "class")).select_by_visible_text(name)
    move(browser, "share-low", 1)
    expected = sum(row[f"pixels_{name}"] >= 100 for row in output.results)
    assert len(shown(browser)) == expected

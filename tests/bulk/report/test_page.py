"""The page of a report: what it says."""

import re

import numpy as np
import pyarrow as pa
import pytest

from segray.bulk.progress import Moment
from segray.errors import InputError
from segray.storage.files import write_bytes
from segray.storage.tables import (
    write_table,
)
from segray.storage.uri import join_uri
from tests.bulk.report.outputs import (
    RECORD,
    Output,
    digest,
    text_of,
    tile_names,
)


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
    assert output.lines == []


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


def test_the_expected_iou_is_that_of_the_record(output: Output) -> None:
    output.add("/nowhere/0.jpg", 0, picture=False)
    output.write()
    ious = {"pet": 0.8125, "background": 0.75, "border": None}
    text = text_of(output.report(RECORD | {"expected_mean_iou": 0.78125, "expected_iou": ious}))
    assert "expected mean IoU 0.781 without a label" in text
    for name, iou in (("pet", "0.812"), ("background", "0.750"), ("border", "\N{EN DASH}")):
        assert re.search(rf"{name} \S+% [\d,]+ \S+% \S+ {iou}", text), name
    assert "expected mean IoU" not in text_of(output.report())


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


def test_regions_are_counted_by_class_and_size(output: Output) -> None:
    rows = [output.add(f"/nowhere/{n}.jpg", n, picture=False) for n in range(4)]
    output.add_regions(rows[0], {"pet": [32, 63, 64, 1000], "border": [20]})
    output.add_regions(rows[1], {"pet": [2000]})
    for row in rows[2:]:
        output.add_regions(row, {})
    output.write(rows_per_file=2)
    page = output.report(RECORD | {"configuration": {"min_area": 20}})
    text = text_of(page)
    assert "of at least 20 pixels of the mask" in text
    assert "pet 5 632 px 50%" in text.replace("50.0%", "50%")
    assert "border 1 20 px 25%" in text.replace("25.0%", "25%")
    assert re.search(r"background 0 \N{EN DASH} 0%", text)
    bars = dict(re.findall(r"<title>size of pet (\S+) px to \S+ px: (\d+) region", page))
    assert bars == {"32": "2", "64": "1", "512": "1", "1,024": "1"}
    assert 'aria-label="histogram of 5 regions by size of pet"' in page
    assert "size of background" not in page


def test_a_run_without_regions_has_no_section_for_them(output: Output) -> None:
    output.add("/nowhere/0.jpg", 0, picture=False)
    output.write()
    assert "Regions" not in text_of(output.report())


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
    output.listed += [(77, "/nowhere/lost.jpg")]
    output.write(rows_per_file=2)
    page = output.report()
    assert "segmented 3 of 4 images failed 1 25.0% of them" in text_of(page)
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
    assert "No image failed." not in text


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

"""Regions of a segmentation: each is there once, with the row of its image."""

import dataclasses
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.bulk.census import Census
from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.bulk.run import segment
from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.pixels.masks import decode_mask
from segray.pixels.regions import RegionFinder
from segray.storage.files import read_bytes, remove
from segray.storage.tables import REGIONS_SCHEMA, results_schema, table_uris
from segray.storage.uri import join_uri
from tests.support import change_bundle, draw_picture, encode


def run(config: SegmentConfig) -> Census:
    with make_plan(config) as plan:
        return segment(plan, on_ray=False).census


def read(output: str, folder: str) -> list[dict[str, Any]]:
    uris = table_uris(join_uri(output, folder))
    tables = [pq.read_table(io.BytesIO(read_bytes(uri))) for uri in uris]
    return [row for table in tables for row in table.to_pylist()]


def check(output: str, labels: Labels, min_area: int) -> None:
    """The regions are those of the masks in results, once each."""
    rows = read(output, "results")
    expected: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        mask = decode_mask(row["mask"]["bytes"])
        finder = RegionFinder(*mask.shape, min_area)
        finder.add(mask)
        found = finder.finish()
        names = [labels.names[class_id] for class_id in found.class_ids]
        places = map(tuple, found.boxes.tolist())
        expected.update(zip([row["id"]] * len(found), names, found.areas, places, strict=True))
        for name in labels.names:
            assert row[f"regions_{name}"] == names.count(name)
    assert expected == Counter(
        (r["id"], r["class"], r["area"], (r["x"], r["y"], r["width"], r["height"]))
        for r in read(output, "regions")
    )
    assert expected


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images, and a file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        picture = encode(draw_picture(90 + number, 120, number), "JPEG")
        (folder / f"{number}.jpg").write_bytes(picture)
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture
def config(images: Path, bundle_uri: str, tmp_path: Path) -> SegmentConfig:
    output = str(tmp_path / "out")
    return SegmentConfig(model=bundle_uri, images=str(images), output=output, regions=True)


def test_regions_are_those_of_the_masks(config: SegmentConfig, labels: Labels) -> None:
    census = run(config)
    check(config.output, labels, 20)
    regions = read(config.output, "regions")
    assert census.regions is not None
    counts = {name: sum(r["class"] == name for r in regions) for name in labels.names}
    assert dict(zip(labels.names, census.regions.regions.tolist(), strict=True)) == counts
    assert json.loads(read_bytes(f"{config.output}/run.json"))["regions"] == counts


def test_columns_are_those_of_the_documents(config: SegmentConfig, labels: Labels) -> None:
    run(config)
    for folder, schema in (("results", results_schema(labels, True)), ("regions", REGIONS_SCHEMA)):
        for uri in table_uris(join_uri(config.output, folder)):
            assert pq.read_schema(uri).equals(schema)


@pytest.mark.parametrize("fit", ["squash", "tile"])
def test_all_regions_together_are_the_pixels_of_a_class(
    config: SegmentConfig, labels: Labels, tmp_path: Path, fit: str
) -> None:
    """Their confidences together are that of the class."""
    model = change_bundle(config.model, tmp_path, fit=fit)
    config = dataclasses.replace(config, model=model, min_area=1)
    run(config)
    check(config.output, labels, 1)
    regions = read(config.output, "regions")
    for row in read(config.output, "results"):
        own = [region for region in regions if region["id"] == row["id"]]
        for name in labels.names:
            areas = [region["area"] for region in own if region["class"] == name]
            sure = [region["confidence"] for region in own if region["class"] == name]
            assert sum(areas) == row[f"pixels_{name}"]
            if areas:
                assert np.average(sure, weights=areas) == pytest.approx(
                    row[f"confidence_{name}"], abs=1e-6
                )


def leave_half_a_chunk(config: SegmentConfig) -> None:
    """As a run that is killed between the regions of a chunk and its results."""
    for uri in table_uris(join_uri(config.output, "results")):
        remove(uri)


def double(config: SegmentConfig) -> None:
    """As a lost worker that wrote on while its chunk was done once more."""
    for folder in ("results", "regions"):
        for uri in table_uris(join_uri(config.output, folder)):
            table = pq.read_table(uri)
            twice = pa.array(np.isin(table["id"].to_numpy(), some_ids(config)))
            pq.write_table(table.filter(twice), uri.replace("-0000.", "-0001."))


def some_ids(config: SegmentConfig) -> list[int]:
    return sorted({row["id"] for row in read(config.output, "results")})[:2]


def leave_doubled_regions(config: SegmentConfig) -> None:
    """As a run that is killed while it removes what is doubled, after the row and before these."""
    [uri] = table_uris(join_uri(config.output, "results"))
    table = pq.read_table(uri)
    keep = ~np.isin(table["id"].to_numpy(), some_ids(config))
    pq.write_table(table.filter(pa.array(keep)), uri)


@pytest.mark.parametrize("harm", [leave_half_a_chunk, double, leave_doubled_regions])
def test_regions_without_a_row_are_removed(
    config: SegmentConfig, labels: Labels, harm: Callable[[SegmentConfig], None]
) -> None:
    run(config)
    before = read(config.output, "regions")
    harm(config)
    run(config)
    check(config.output, labels, 20)
    in_order = [sorted(map(repr, rows)) for rows in (before, read(config.output, "regions"))]
    assert in_order[0] == in_order[1]


def test_regions_come_and_go_with_the_rows(
    images: Path, config: SegmentConfig, labels: Labels
) -> None:
    run(config)
    (images / "1.jpg").unlink()
    (images / "2.jpg").write_bytes(encode(draw_picture(70, 80, 9), "JPEG"))
    census = run(config)
    assert census.stale == 2  # the regions of these stay as well, and do not count
    check(config.output, labels, 20)
    current = {row["id"] for row in read(config.output, "manifest")}
    listed = [region for region in read(config.output, "regions") if region["id"] in current]
    assert census.regions is not None
    assert census.regions.regions.sum() == len(listed) < len(read(config.output, "regions"))

    run(dataclasses.replace(config, retry_errors=True, prune=True))
    check(config.output, labels, 20)
    assert {region["id"] for region in read(config.output, "regions")} <= current
    assert len(read(config.output, "results")) == 5

    for path in list(images.iterdir())[1:]:
        path.unlink()
    run(dataclasses.replace(config, prune=True))
    check(config.output, labels, 20)


def test_other_regions_are_refused_and_overwriting_begins_anew(
    config: SegmentConfig, labels: Labels
) -> None:
    without = dataclasses.replace(config, regions=False)
    run(without)
    assert read(config.output, "regions") == []
    with pytest.raises(InputError, match=r"--no-regions, and .* has --regions: .*--overwrite"):
        run(config)
    run(dataclasses.replace(config, overwrite=True))
    check(config.output, labels, 20)
    smaller = dataclasses.replace(config, min_area=3)
    with pytest.raises(InputError, match=r"--min-area 20, and .* has --min-area 3"):
        run(smaller)
    run(dataclasses.replace(smaller, overwrite=True))
    check(config.output, labels, 3)
    run(dataclasses.replace(without, overwrite=True))
    assert read(config.output, "regions") == []


def test_an_output_from_before_there_were_regions_has_none(config: SegmentConfig) -> None:
    without = dataclasses.replace(config, regions=False)
    run(without)
    settings = Path(config.output, "config.json")
    old = json.loads(settings.read_text())
    del old["regions"], old["min_area"]
    settings.write_text(json.dumps(old))
    with pytest.raises(InputError, match="--no-regions"):
        run(config)
    assert run(without).segmented == 6


@pytest.mark.parametrize("content", [None, b"PAR1 not at all PAR1", b""])
def test_lost_regions_are_named_and_can_be_had_again(
    config: SegmentConfig, labels: Labels, content: bytes | None
) -> None:
    run(config)
    [uri] = table_uris(join_uri(config.output, "regions"))
    [results] = table_uris(join_uri(config.output, "results"))
    if content is None:
        remove(uri)
    elif content:
        Path(uri).write_bytes(content)
    else:  # some are missing
        pq.write_table(pq.read_table(uri).slice(1), uri)
    with pytest.raises(InputError, match=rf"out/regions/.*: delete .*{results}, and run") as caught:
        run(config)
    assert len(str(caught.value).splitlines()) == 1
    remove(results)
    run(config)
    check(config.output, labels, 20)


def test_a_least_area_without_regions_is_refused(config: SegmentConfig) -> None:
    with pytest.raises(InputError, match="--min-area is for --regions"):
        dataclasses.replace(config, regions=False, min_area=5)
    with pytest.raises(InputError, match="--min-area must be at least 1"):
        dataclasses.replace(config, min_area=0)

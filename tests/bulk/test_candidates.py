"""Candidates: which images of a chunk keep a picture, and that the report shows those."""

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segray.bulk.candidates import Candidates
from segray.bulk.census import take_census
from segray.bulk.config import SegmentConfig
from segray.bulk.manifest import read_manifest
from segray.bulk.pipeline import Pipeline, PipelineConfig
from segray.bulk.plan import make_plan
from segray.bulk.report.page import write_report
from segray.bulk.run import segment
from segray.bulk.tally import Tally
from segray.pixels.decoding import Picture
from segray.pixels.framing import Box
from segray.pixels.labels import Labels
from segray.storage.tables import GALLERY_SCHEMA
from tests.support import draw_picture, encode, logged_lines

PICTURE = Picture(np.zeros((8, 8, 3), np.uint8), 8, 8, Box(0, 0, 8, 8))


def draw_chunk(images: int, classes: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Ids int64 [N], shares float64 [N, C] and expected IoU float64 [N]."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(-(2**63), 2**63, images, dtype=np.int64)
    shares = rng.dirichlet(np.full(classes, 0.3), images)
    shares[shares < 0.01] = 0
    return ids, shares, rng.uniform(0.4, 1, images)


def choose(
    ids: np.ndarray, shares: np.ndarray, expected: np.ndarray, size: int | None = None
) -> set[int]:
    candidates = Candidates(len(ids) if size is None else size)
    for id, fractions, iou in zip(ids.tolist(), shares.tolist(), expected.tolist(), strict=True):
        candidates.add(id, fractions, iou, PICTURE)
    return set(candidates.pictures)


def test_they_are_an_even_sample_the_worst_and_the_most_of_each_class() -> None:
    ids, shares, expected = draw_chunk(512, 3)
    even = set(np.sort(ids)[:2].tolist())
    worst = set(ids[np.argsort(expected)[:2]].tolist())
    most = set(ids[shares.argmax(axis=0)].tolist())
    assert choose(ids, shares, expected) == even | worst | most
    assert len(even | worst | most) == 7


@pytest.mark.parametrize(("images", "least", "most"), [(1, 1, 1), (16, 16, 16), (125, 8, 15)])
def test_small_chunks_keep_a_larger_part(images: int, least: int, most: int) -> None:
    assert least <= len(choose(*draw_chunk(images, 3))) <= most


def test_many_classes_are_those_that_fill_most_of_an_image() -> None:
    ids, shares, expected = draw_chunk(512, 255)
    best = np.argsort(-shares.max(axis=0))[:8]
    most = set(ids[shares[:, best].argmax(axis=0)].tolist())
    found = choose(ids, shares, expected)
    assert most <= found
    assert len(found) <= 12


def test_their_order_does_not_matter() -> None:
    ids, shares, expected = draw_chunk(300, 20)
    shares[100:200], expected[100:200] = shares[:100], expected[:100]  # many are equal
    other = np.random.default_rng(1).permutation(300)
    assert choose(ids, shares, expected) == choose(ids[other], shares[other], expected[other])


def test_no_other_pixels_are_held() -> None:
    candidates = Candidates(512)
    ids, shares, _ = draw_chunk(512, 40)
    for id, fractions in zip(ids.tolist(), shares.tolist(), strict=True):
        candidates.add(id, fractions, 0.5, PICTURE)
        assert len(candidates.pictures) <= 12


def test_the_smallest_ids_of_all_chunks_are_an_even_sample() -> None:
    """Whatever the sizes of the chunks: none is preferred."""
    ids, shares, expected = draw_chunk(8 * 512, 3)
    kept: set[int] = set()
    for first in range(0, 4 * 512, 512):
        part = slice(first, first + 512)
        kept |= choose(ids[part], shares[part], expected[part])
    for first in range(4 * 512, 8 * 512, 16):
        part = slice(first, first + 16)
        kept |= choose(ids[part], shares[part], expected[part])
    place = {id: n for n, id in enumerate(ids.tolist())}
    halves = [place[id] // (4 * 512) for id in sorted(kept)[:12]]
    assert 3 <= sum(halves) <= 9


# In a run.


@pytest.fixture
def config(bundle_uri: str, tmp_path: Path) -> SegmentConfig:
    """A run over twenty images of different sizes, and a bad one."""
    images = tmp_path / "images"
    images.mkdir()
    for n in range(20):
        picture = draw_picture(300 if n % 2 else 30, 200 + n, seed=n)
        (images / f"{n:02}.png").write_bytes(encode(picture, "PNG"))
    (images / "bad.png").write_bytes(b"no image")
    return SegmentConfig(model=bundle_uri, images=str(images), output=str(tmp_path / "out"))


def run(config: SegmentConfig) -> list[str]:
    with logged_lines() as lines, make_plan(config) as plan:
        segment(plan, on_ray=False)
    return lines


def read_folder(config: SegmentConfig, folder: str) -> pa.Table:
    return pq.read_table(Path(config.output, folder))


def pictures(config: SegmentConfig) -> dict[str, Image.Image]:
    """The pictures that were kept, by the names of their images."""
    uri_of = {row["id"]: row["uri"] for row in read_folder(config, "results").to_pylist()}
    kept = read_folder(config, "gallery").to_pylist()
    return {Path(uri_of[row["id"]]).name: Image.open(io.BytesIO(row["image"])) for row in kept}


def page_of(config: SegmentConfig) -> str:
    return Path(config.output, "report.html").read_text()


def test_a_run_keeps_small_pictures_in_their_proportions(config: SegmentConfig) -> None:
    run(config)
    kept = pictures(config)
    assert len(kept) == 20  # of a small chunk all
    for n in range(20):
        height, width = (256, round((200 + n) * 256 / 300)) if n % 2 else (30, 200 + n)
        image = kept[f"{n:02}.png"]
        assert (image.format, image.size) == ("JPEG", (width, height))
        expected = Image.fromarray(draw_picture(300 if n % 2 else 30, 200 + n, seed=n))
        small = np.asarray(expected.resize(image.size), dtype=np.float64)
        # The network saw a square of 64 pixels.
        assert np.abs(np.asarray(image) - small).mean() < 8
    assert read_folder(config, "gallery").schema.equals(GALLERY_SCHEMA)


def test_the_report_reads_no_source(
    config: SegmentConfig, labels: Labels, lines: list[str]
) -> None:
    run(config)
    lines.clear()
    for path in Path(str(config.images)).iterdir():
        path.unlink()
    Path(config.output, "report.html").unlink()
    manifest = read_manifest(config.output, "", 1)
    census = take_census(config.output, manifest, labels, False)
    write_report(config.output, labels, census, {}, [])
    assert page_of(config).count('<img class="image"') == 20
    assert page_of(config).count('<img class="mask"') == 20
    assert lines == []


def test_a_chunk_of_which_all_is_done_leaves_its_pictures(config: SegmentConfig) -> None:
    """As it is handed out again when its process has died at the very end."""
    with make_plan(config) as plan:
        pipeline = Pipeline(PipelineConfig.of(plan, 1), plan.predictor_loader(1)(), Tally())
        [chunk] = plan.search.list_and_record(0, plan.done, lambda found: None)
        pipeline.segment(chunk)
        before = read_folder(config, "gallery")
        assert 16 <= len(before) <= 20
        pipeline.segment(chunk)
    assert read_folder(config, "gallery").equals(before)


def test_the_same_pictures_are_shown_by_a_run_with_nothing_to_do(config: SegmentConfig) -> None:
    run(config)
    before = re.findall(r'<img class="image"[^>]*>', page_of(config))
    run(config)
    assert re.findall(r'<img class="image"[^>]*>', page_of(config)) == before
    assert len(before) == 20
    assert len(read_folder(config, "gallery")) == 20


def test_a_changed_image_has_another_picture(config: SegmentConfig) -> None:
    run(config)
    Path(str(config.images), "07.png").write_bytes(encode(draw_picture(50, 60, 99), "PNG"))
    Path(str(config.images), "08.png").unlink()
    run(config)
    assert len(read_folder(config, "gallery")) == 21
    assert page_of(config).count('<img class="image"') == 19
    pruned = run(dataclasses.replace(config, prune=True))
    assert "removed 2 rows of images that are gone or have changed" in pruned
    kept = pictures(config)
    assert sorted(kept) == [f"{n:02}.png" for n in range(20) if n != 8]
    assert kept["07.png"].size == (60, 50)
    assert page_of(config).count('<img class="image"') == 19


def test_overwriting_empties_the_gallery(config: SegmentConfig) -> None:
    run(config)
    for n in range(1, 20):
        Path(str(config.images), f"{n:02}.png").unlink()
    run(dataclasses.replace(config, overwrite=True))
    assert sorted(pictures(config)) == ["00.png"]

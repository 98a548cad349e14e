"""What is looked at before a segmentation begins, what is refused, and what is never deleted."""

import dataclasses
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.bulk.run import SegmentSummary, segment
from segray.errors import InputError
from tests.support import draw_picture, encode, logged_lines

PHOTO = encode(draw_picture(12, 16), "JPEG")


def run(config: SegmentConfig, **flags: object) -> tuple[SegmentSummary, list[str]]:
    """What jobs/segment.py does, and the lines that it would print."""
    with logged_lines() as lines, make_plan(dataclasses.replace(config, **flags)) as plan:
        return segment(plan, on_ray=False), lines


def check_refused(config: SegmentConfig, reason: str, **flags: object) -> None:
    """It is, in one line, and whatever is in the output stays as it is, but for a lock."""
    before = contents(config)
    with pytest.raises(InputError, match=reason) as caught:
        run(config, **flags)
    assert len(str(caught.value).splitlines()) == 1
    assert contents(config) == before


def contents(config: SegmentConfig) -> dict[Path, bytes]:
    files = [path for path in Path(config.output).rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.name != "run.lock"}


def segmented(config: SegmentConfig) -> list[str]:
    """The keys of the images that have a row in results."""
    files = Path(config.output, "results").glob("*.parquet")
    uris = [
        uri for file in files for uri in pq.read_table(file, columns=["uri"])["uri"].to_pylist()
    ]
    return sorted(re.sub(r".*/images/", "", uri) for uri in uris)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images, one of them in ``keep/``."""
    folder = tmp_path / "images"
    (folder / "keep").mkdir(parents=True)
    for key in ("a.jpg", "b.jpg", "keep/c.jpg"):
        (folder / key).write_bytes(PHOTO)
    return folder


@pytest.fixture
def config(images: Path, bundle_uri: str, tmp_path: Path) -> SegmentConfig:
    return SegmentConfig(model=bundle_uri, images=str(images), output=f"{tmp_path}/out")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", ["results/x.parquet", "errors/x.parquet", "report.html"])
def test_what_no_segmentation_has_left_is_neither_read_nor_deleted(
    config: SegmentConfig, place: str, overwrite: bool
) -> None:
    mine = Path(config.output, place)
    mine.parent.mkdir(parents=True)
    pq.write_table(pa.table({"name": ["Rex"]}), mine)
    top = place.partition("/")[0]
    check_refused(config, rf"no segmentation \({top}\): give another", overwrite=overwrite)


@pytest.mark.parametrize("columns", [{"name": ["Rex"]}, {"id": ["x"]}, {"id": [1, None]}])
def test_a_table_of_another_program_among_the_results_is_refused(
    config: SegmentConfig, columns: dict[str, list[object]]
) -> None:
    run(config)
    pq.write_table(pa.table(columns), Path(config.output, "results", "mine.parquet"))
    run_record = Path(config.output, "run.json")
    run_record.unlink()  # the run that is refused has removed it before it reads the tables
    check_refused(config, r"mine\.parquet has .*column id.*another program")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model": "x", "mask_size": "original"}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_settings_of_another_program_are_refused(
    config: SegmentConfig, text: str, overwrite: bool
) -> None:
    Path(config.output).mkdir()
    Path(config.output, "config.json").write_text(text)
    check_refused(config, r"config\.json is no record of a segmentation", overwrite=overwrite)


def test_rows_of_an_earlier_version_are_not_mixed_with_others(config: SegmentConfig) -> None:
    run(config)
    file = Path(config.output, "config.json")
    settings = json.loads(file.read_text())
    del settings["columns"]
    file.write_text(json.dumps(settings))
    check_refused(config, "another version of segray.*--overwrite")
    run(config, overwrite=True)
    assert run(config)[0].processed == 0


def test_nothing_is_overwritten_before_images_are_found(
    config: SegmentConfig, tmp_path: Path
) -> None:
    run(config)
    (tmp_path / "empty").mkdir()
    check_refused(config, "no image found", overwrite=True, images=f"{tmp_path}/empty")


def test_a_limit_holds_for_all_files_of_a_manifest_together(
    config: SegmentConfig, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "tables").mkdir()
    for number, name in enumerate(["a.jpg", "b.jpg", "keep/c.jpg"]):
        uris = [f"{images}/{name}"]
        pq.write_table(pa.table({"uri": uris}), tmp_path / "tables" / f"{number}.parquet")
    flags = {"images": None, "manifest": f"{tmp_path}/tables"}
    summary, _ = run(config, limit=2, **flags)
    assert summary.census.listed == 2
    assert segmented(config) == ["a.jpg", "b.jpg"]
    assert run(config, **flags)[0].census.listed == 3


def test_pruning_with_a_limit_is_refused(config: SegmentConfig) -> None:
    with pytest.raises(InputError, match="leave out --limit or --prune"):
        dataclasses.replace(config, prune=True, limit=2)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("include", ("keep/*",)), ("exclude", ("a*",)), ("suffixes", (".png", ".jpeg", ".JPG"))],
)
def test_images_that_are_left_out_are_pruned_only_if_they_were_before(
    config: SegmentConfig, flag: str, value: tuple[str, ...]
) -> None:
    run(config)
    check_refused(config, f"--{flag}.*--prune", prune=True, **{flag: value})
    run(config, **{flag: value})
    assert segmented(config) == ["a.jpg", "b.jpg", "keep/c.jpg"]
    summary, _ = run(config, prune=True, **{flag: value})
    assert len(segmented(config)) == summary.census.listed > 0


def test_images_elsewhere_are_pruned_only_if_they_were_before(
    config: SegmentConfig, images: Path, tmp_path: Path
) -> None:
    run(config)
    check_refused(config, "--images.*--prune", prune=True, images=str(images / "keep"))
    (tmp_path / "table.csv").write_text("uri\nimages/a.jpg\n")
    manifest = f"{tmp_path}/table.csv"
    check_refused(config, "--prune", prune=True, images=None, manifest=manifest)
    run(config, images=str(images / "keep"))
    run(config, images=str(images / "keep"), prune=True)
    assert segmented(config) == ["keep/c.jpg"]


def test_overwriting_is_free_to_choose_and_prune_at_once(config: SegmentConfig) -> None:
    run(config)
    run(config, include=("keep/*",), overwrite=True, prune=True)
    assert segmented(config) == ["keep/c.jpg"]


def test_after_all_images_are_gone_pruning_removes_their_rows(
    config: SegmentConfig, images: Path
) -> None:
    run(config)
    for path in images.rglob("*.jpg"):
        path.unlink()
    check_refused(config, "no image found in .*/images: it is empty")
    summary, lines = run(config, prune=True)
    assert (summary.census.listed, summary.census.segmented) == (0, 0)
    assert "removed 3 rows of images that are gone or have changed" in lines
    assert segmented(config) == []
    assert json.loads(Path(config.output, "run.json").read_text())["counts"]["listed"] == 0


def test_without_images_there_is_nothing_to_prune_in_a_new_output(
    config: SegmentConfig, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text("uri\n")
    manifest = f"{tmp_path}/table.csv"
    reason = rf"no image found in {re.escape(manifest)}: it is empty"
    check_refused(config, reason, images=None, manifest=manifest, prune=True)


def test_masks_beside_images_are_told_with_what_leaves_them_out(
    config: SegmentConfig, images: Path
) -> None:
    photo = next(images.iterdir())
    (images / f"{photo.stem}_mask.png").write_bytes(encode(draw_picture(12, 16), "PNG"))
    config = dataclasses.replace(config, limit=None)
    summary, lines = run(config)
    [line] = [line for line in lines if "named like the masks" in line]
    assert f"{photo.stem}_mask.png" in line
    assert "--exclude '*_mask.png'" in line
    before = summary.census.listed
    summary, lines = run(config, exclude=("*_mask.png",), overwrite=True)
    assert summary.census.listed == before - 1
    assert not [line for line in lines if "named like the masks" in line]

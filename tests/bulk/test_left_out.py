"""What of an inventory, of a table of one's own or of a folder counts as an image."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from tests.support import logged_lines

URIS = ["/data/a.jpg", "/data/b.png", "/data/notes.txt", "/data/scan"]


def plan(config: SegmentConfig) -> tuple[int | None, str]:
    """How many images there are to do, and what was printed."""
    with logged_lines() as lines, make_plan(config) as made:
        return made.missing, "\n".join(lines)


def inventory(folder: Path) -> str:
    """The manifest.json of an S3 Inventory in Parquet."""
    keys = [uri.removeprefix("/data/") for uri in URIS]
    pq.write_table(pa.table({"bucket": ["data"] * 4, "key": keys}), folder / "1.parquet")
    document = {
        "destinationBucket": "arn:aws:s3:::inventories",
        "fileFormat": "Parquet",
        "fileSchema": "message s3.inventory { required binary bucket (UTF8); }",
        "files": [{"key": "1.parquet"}],
    }
    (folder / "manifest.json").write_text(json.dumps(document))
    return str(folder / "manifest.json")


@pytest.fixture
def config(bundle_uri: str, tmp_path: Path) -> SegmentConfig:
    (tmp_path / "images.csv").write_text("\n".join(["uri", *URIS]))
    return SegmentConfig(
        model=bundle_uri, manifest=f"{tmp_path}/images.csv", output=f"{tmp_path}/out"
    )


def with_flags(config: SegmentConfig, **flags: object) -> SegmentConfig:
    return SegmentConfig(**{**vars(config), **flags})


def test_of_an_inventory_of_s3_images_are_taken_by_their_suffix(
    config: SegmentConfig, tmp_path: Path
) -> None:
    config = with_flags(config, manifest=inventory(tmp_path))
    missing, said = plan(config)
    assert missing == 2
    assert "2 with another suffix" in said
    assert plan(with_flags(config, suffixes=(".txt",)))[0] == 1
    assert plan(with_flags(config, suffixes=("",)))[0] == 4


def test_a_table_of_ones_own_names_images_however_they_are_called(config: SegmentConfig) -> None:
    assert plan(config)[0] == 4


def test_what_cannot_be_read_in_a_folder_is_counted(config: SegmentConfig, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"")
    (tmp_path / "in" / "b.jpg").symlink_to("nowhere.jpg")
    missing, said = plan(with_flags(config, manifest=None, images=str(tmp_path / "in")))
    assert missing == 1
    assert "found 1 images; left out: 1 that are no files" in said


def test_suffixes_that_were_asked_for_choose_from_a_table_too(config: SegmentConfig) -> None:
    missing, said = plan(with_flags(config, suffixes=(".JPG",)))
    assert missing == 1
    assert "3 with another suffix" in said

"""--include and --exclude: the same patterns choose the same images, listed or named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.bulk.config import SegmentConfig
from segray.bulk.manifest import Found
from segray.bulk.plan import make_plan
from segray.storage.files import write_bytes

KEYS = ["photos/1.jpg", "photos/deep/2.jpg", "photos/deep/old/3.jpg", "other/photos/4.jpg", "5.jpg"]


def chosen(bundle_uri: str, output: Path, root: str, **flags: object) -> list[str]:
    """The keys below the root of the images that a run would segment."""
    config = SegmentConfig(
        model=bundle_uri,
        output=str(output),
        include=("photos/*",),
        exclude=("*/old/*", "*photos/4*"),
        **flags,
    )
    with make_plan(config) as plan:
        parts = range(len(plan.search.parts))
        images = [plan.search.images(part, Found()) for part in parts]
        uris = [entry.uri for part in images for page in part for entry in page]
    assert all(uri.startswith(f"{root}/") for uri in uris)
    return [uri.removeprefix(f"{root}/") for uri in uris]


@pytest.fixture(scope="module")
def bucket(aws_environment: None) -> str:
    import boto3

    boto3.client("s3").create_bucket(Bucket="patterns")
    for key in KEYS:
        write_bytes(f"s3://patterns/{key}", b"")
    return "s3://patterns"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patterns")
    for key in KEYS:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).touch()
    return folder


def table_of(uris: list[str], path: Path) -> str:
    path.write_text("\n".join(["uri", *uris]) + "\n")
    return str(path)


EXPECTED = ["photos/1.jpg", "photos/deep/2.jpg"]


def test_of_a_listing(bundle_uri: str, bucket: str, folder: Path, tmp_path: Path) -> None:
    for number, root in enumerate([bucket, str(folder)]):
        found = chosen(bundle_uri, tmp_path / f"{number}", root, images=root)
        assert found == EXPECTED


def test_of_a_table_of_uris(bundle_uri: str, bucket: str, folder: Path, tmp_path: Path) -> None:
    cases = [
        (bucket, [f"{bucket}/{key}" for key in KEYS], tmp_path / "s3.csv"),
        # As it is written, in a table beside the images.
        (str(folder), KEYS, folder / "relative.csv"),
        (str(folder), [f"{folder}/{key}" for key in KEYS], folder / "absolute.csv"),
        (str(folder), [f"file://{folder}/{key}" for key in KEYS], folder / "files.csv"),
    ]
    for number, (root, uris, path) in enumerate(cases):
        found = chosen(bundle_uri, tmp_path / f"{number}", root, manifest=table_of(uris, path))
        assert found == EXPECTED, path


def test_of_a_folder_of_tables(bundle_uri: str, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for number, key in enumerate(KEYS):
        pq.write_table(
            pa.table({"uri": [f"{bucket}/{key}"]}), tmp_path / f"tables/{number}.parquet"
        )
    found = chosen(bundle_uri, tmp_path / "out", bucket, manifest=str(tmp_path / "tables"))
    assert found == EXPECTED


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_of_an_inventory_of_s3(
    bundle_uri: str, bucket: str, tmp_path: Path, s3: Callable[[str], str], kind: str
) -> None:
    inventories = s3(f"patterns-inventory-{kind.lower()}")
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({"bucket": [bucket[5:]] * 5, "key": KEYS}), buffer)
    lines = "\n".join(f'"{bucket[5:]}","{key}"' for key in KEYS)
    content = gzip.compress(lines.encode()) if kind == "CSV" else buffer.getvalue().to_pybytes()
    key = "data/1.csv.gz" if kind == "CSV" else "data/1.parquet"
    write_bytes(f"{inventories}/{key}", content)
    document = {
        "destinationBucket": f"arn:aws:s3:::{inventories[5:]}",
        "fileFormat": kind,
        "fileSchema": "Bucket, Key" if kind == "CSV" else "message s3.inventory {}",
        "files": [{"key": key}],
    }
    write_bytes(f"{inventories}/2026/manifest.json", json.dumps(document).encode())
    found = chosen(
        bundle_uri, tmp_path / "out", bucket, manifest=f"{inventories}/2026/manifest.json"
    )
    assert found == EXPECTED

"""Tables: Parquet files that come back equal, and that other tools understand."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.pixels.masks import encode_mask
from segray.storage.files import read_bytes, write_bytes
from segray.storage.s3 import forget_client
from segray.storage.tables import (
    ERRORS_SCHEMA,
    MANIFEST_SCHEMA,
    PartWriter,
    open_parquet,
    read_table,
    read_tables,
    results_schema,
    table_uris,
    write_table,
)
from segray.storage.uri import join_uri
from tests.endpoints.server import Head, Server, read_head

LABELS = Labels.parse(["pet=1", "background=2"])


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        name = tmp_path.name.replace("_", "-").lower()
        return str(s3(f"tables-{name}")) + "/results"
    return str(tmp_path / "results")


def manifest(first: int, rows: int = 2) -> pa.Table:
    ids = list(range(first, first + rows))
    columns: dict[str, list[Any]] = {
        "id": ids,
        "uri": [f"s3://bucket/été {id}.jpg" for id in ids],
        "size": [1 << 40 for _ in ids],
        "etag": ["abc", None][:rows],
    }
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def results() -> pa.Table:
    png = encode_mask(np.array([[0, 0, 0]], dtype=np.uint8), LABELS.palette)
    row = {
        "id": -(2**63),
        "uri": "/images/a.jpg",
        "width": 3,
        "height": 1,
        "mask": {"bytes": png, "path": None},
        "pixels_pet": 3,
        "fraction_pet": 1.0,
        "confidence_pet": 0.75,
        "expected_pixels_pet": 2.25,
        "expected_iou_pet": 0.75,
        "pixels_background": 0,
        "fraction_background": 0.0,
        "confidence_background": None,
        "expected_pixels_background": 0.75,
        "expected_iou_background": 0.0,
        "expected_iou": 0.375,
        "model": "sha256:00",
    }
    return pa.Table.from_pylist([row], results_schema(LABELS))


def test_a_table_comes_back_equal(folder: str) -> None:
    uri = join_uri(folder, "part-0.parquet")
    for table in (manifest(1), results(), pa.table({"id": []}, pa.schema([("id", pa.int64())]))):
        write_table(uri, table)
        back = list(read_tables(folder, table.column_names))
        assert len(back) == 1
        assert back[0].equals(table, check_metadata=True)


def test_the_parquet_files_of_a_folder_come_in_order_and_nothing_else_does(folder: str) -> None:
    write_table(join_uri(folder, "part-2.parquet"), manifest(20))
    write_table(join_uri(folder, "part-1.parquet"), manifest(10))
    write_table(join_uri(folder, "deeper", "part-0.parquet"), manifest(0))
    write_bytes(join_uri(folder, "notes.txt"), b"notes")
    write_bytes(join_uri(folder, ".partial-x1y2"), b"half of a fi")
    assert table_uris(folder) == [join_uri(folder, f"part-{i}.parquet") for i in (1, 2)]
    tables = list(read_tables(folder, ["id"]))
    assert [table.to_pydict() for table in tables] == [{"id": [10, 11]}, {"id": [20, 21]}]


def test_a_folder_that_is_not_there_has_no_tables(folder: str) -> None:
    assert table_uris(folder) == []
    assert list(read_tables(folder, ["id"])) == []


def broken_in_the_middle(parquet: bytes) -> bytes:
    return parquet[:4] + bytes(len(parquet) // 2) + parquet[4 + len(parquet) // 2 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda parquet: b"",
        lambda parquet: b"no Parquet at all, but a longer text\n" * 9,
        lambda parquet: parquet[:-1],
        lambda parquet: parquet[: len(parquet) // 2],
        lambda parquet: parquet[len(parquet) // 2 :],
        broken_in_the_middle,
    ],
    ids=["empty", "text", "last byte cut", "end cut", "beginning cut", "zeros in the middle"],
)
def test_a_broken_file_is_named_on_one_line(folder: str, damage: Callable[[bytes], bytes]) -> None:
    uri = join_uri(folder, "part-0.parquet")
    write_table(uri, manifest(0))
    write_bytes(uri, damage(read_bytes(uri)))
    with pytest.raises(InputError) as error:
        list(read_tables(folder, ["id", "uri", "size", "etag"]))
    message = str(error.value)
    assert message.startswith(f"cannot read {uri}: ")
    assert "\n" not in message
    assert len(message) < 600


class _OneObject(Server):
    """A bucket with one object, of any key; it counts the bytes that it sends."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sent = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_head(reader):
            asked = re.fullmatch(rb"bytes=(\d*)-(\d+)", request.get(b"range"))
            assert asked
            size = len(self.content)
            first = int(asked[1]) if asked[1] else size - int(asked[2])
            body = self.content[first : int(asked[2]) + 1 if asked[1] else size]
            fields = [
                (b"Content-Length", b"%d" % len(body)),
                (b"Content-Range", b"bytes %d-%d/%d" % (first, first + len(body) - 1, size)),
            ]
            writer.write(Head(b"HTTP/1.1 206 Partial Content", fields).to_bytes() + body)
            self.sent += len(body)
            await writer.drain()


def test_of_a_file_in_s3_only_the_columns_asked_for_are_fetched(
    aws_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({"id": list(range(500)), "image": [rng.bytes(20_000) for _ in range(500)]})
    write_table(str(tmp_path / "file.parquet"), table)
    with _OneObject((tmp_path / "file.parquet").read_bytes()) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        forget_client()
        try:
            ids = read_table("s3://bucket/file.parquet", ["id"])
        finally:
            forget_client()
    assert ids.to_pydict() == {"id": list(range(500))}
    assert len(server.content) > 10_000_000
    assert server.sent < 200_000


def test_a_file_is_fetched_as_it_is_read(
    aws_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A manifest of gigabytes is not in memory as a whole."""
    rng = np.random.default_rng(0)
    table = pa.table({"uri": [rng.bytes(20_000).hex() for _ in range(500)]})
    pq.write_table(table, tmp_path / "file.parquet", row_group_size=50)
    with _OneObject((tmp_path / "file.parquet").read_bytes()) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        forget_client()
        try:
            with open_parquet("s3://bucket/file.parquet") as file:
                first = next(file.iter_batches(10))
        finally:
            forget_client()
    assert first["uri"].to_pylist() == table["uri"].to_pylist()[:10]
    assert server.sent < len(server.content) / 5


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """In what is not compressed Parquet itself would pass it on."""
    uri = str(tmp_path / "file.parquet")
    image = np.random.default_rng(0).bytes(20_000)
    write_table(uri, pa.table({"image": [image]}))
    content = bytearray(read_bytes(uri))
    content[content.index(image) + 10_000] ^= 1
    write_bytes(uri, bytes(content))
    with pytest.raises(InputError, match=f"cannot read {uri}"):
        read_table(uri)


def test_text_is_compressed_whatever_its_column_is_called(tmp_path: Path) -> None:
    """In the table of an evaluation, the column image has URIs."""
    uris = [f"s3://bucket/photographs/of/animals/{number:08}.jpg" for number in range(10_000)]
    write_table(str(tmp_path / "file.parquet"), pa.table({"image": uris}))
    assert (tmp_path / "file.parquet").stat().st_size < sum(map(len, uris)) / 5


def test_a_column_that_is_not_there_is_named(folder: str) -> None:
    uri = join_uri(folder, "part-0.parquet")
    write_table(uri, manifest(0))
    with pytest.raises(InputError) as error:
        read_table(uri, ["id", "width"])
    assert str(error.value).startswith(f"{uri} has no column width")


def test_results_have_the_columns_that_the_documentation_names() -> None:
    schema = results_schema(LABELS)
    assert {field.name: str(field.type) for field in schema} == {
        "id": "int64",
        "uri": "string",
        "width": "int32",
        "height": "int32",
        "mask": "struct<bytes: binary, path: string>",
        "pixels_pet": "int64",
        "fraction_pet": "float",
        "confidence_pet": "float",
        "expected_pixels_pet": "float",
        "expected_iou_pet": "float",
        "pixels_background": "int64",
        "fraction_background": "float",
        "confidence_background": "float",
        "expected_pixels_background": "float",
        "expected_iou_background": "float",
        "expected_iou": "float",
        "brightness": "float",
        "contrast": "float",
        "saturation": "float",
        "warmth": "float",
        "sharpness": "float",
        "upper_detail": "float",
        "model": "string",
    }


def test_errors_have_the_columns_that_the_documentation_names() -> None:
    assert ERRORS_SCHEMA.names == ["id", "uri", "stage", "error", "message"]


def test_the_hugging_face_key_gives_every_column_its_type(tmp_path: Path) -> None:
    write_table(str(tmp_path / "part-0.parquet"), results())
    metadata = pq.read_schema(tmp_path / "part-0.parquet").metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features.pop("mask") == {"_type": "Image"}
    assert all(feature["_type"] == "Value" for feature in features.values())
    assert {name: feature["dtype"] for name, feature in features.items()} == {
        "id": "int64",
        "uri": "string",
        "width": "int32",
        "height": "int32",
        "pixels_pet": "int64",
        "fraction_pet": "float32",
        "confidence_pet": "float32",
        "expected_pixels_pet": "float32",
        "expected_iou_pet": "float32",
        "pixels_background": "int64",
        "fraction_background": "float32",
        "confidence_background": "float32",
        "expected_pixels_background": "float32",
        "expected_iou_background": "float32",
        "expected_iou": "float32",
        "brightness": "float32",
        "contrast": "float32",
        "saturation": "float32",
        "warmth": "float32",
        "sharpness": "float32",
        "upper_detail": "float32",
        "model": "string",
    }


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_an_attempt_that_was_taken_for_dead_replaces_nothing(
    place: str, tmp_path: Path, s3: Callable[[str], str]
) -> None:
    """Both have the same rows to write; the first one is slow, and still comes to its end."""
    folder = str(tmp_path) if place == "disk" else s3("attempts") + "/errors"
    first, second = (PartWriter(folder, "chunk[1]", ERRORS_SCHEMA) for _ in range(2))
    second.rows = [{"id": number, "uri": "u"} for number in range(4)]
    second.flush()
    first.rows = [{"id": 0, "uri": "u"}]
    first.flush()

    found = PartWriter(folder, "chunk[1]", ERRORS_SCHEMA).found_ids()

    assert found == {0, 1, 2, 3}
    assert PartWriter(folder, "chunk", ERRORS_SCHEMA).found_ids() == set()
    assert PartWriter(folder, "chunk[1", ERRORS_SCHEMA).found_ids() == set()


def test_an_array_of_a_column_imports_nothing() -> None:
    """An interrupt within an import that pyarrow begins would be lost, or hang the process."""
    program = (
        "import sys, segray.storage.tables, pyarrow as pa; before = set(sys.modules); "
        "pa.chunked_array([[1, 2]]).to_numpy(); print(sorted(set(sys.modules) - before))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr

"""Results of somebody else, in which Ray Data's pickled objects stand for URIs and masks."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data

from segray.errors import InputError
from segray.export.config import ExportConfig
from segray.export.run import export
from segray.storage.tables import open_parquet, read_parquet, read_table, table_uris
from tests.segmentations import make_segmentation

assert ray.data  # which registers the type, in this process as in a job's

PICKLED = b"ray.data.arrow_pickled_object"


class _Marker:
    """What is unpickled makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.mkdir, (self.path,)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "unpickled"


def write_pickles(path: Path, marker: Path, nested: bool) -> str:
    """A table whose column ``mask`` is a pickled object, or holds one."""
    content = pickle.dumps(_Marker(marker))
    metadata = {b"ARROW:extension:name": PICKLED, b"ARROW:extension:metadata": b""}
    field = pa.field("path", pa.large_binary(), metadata=metadata)
    values = pa.array([content], pa.large_binary())
    if nested:
        values, field = pa.StructArray.from_arrays([values], fields=[field]), None
        field = pa.field("mask", values.type)
    schema = pa.schema([("id", pa.int64()), field.with_name("mask")])
    pq.write_table(pa.Table.from_arrays([pa.array([1]), values], schema=schema), path)
    return str(path)


@pytest.mark.parametrize("nested", [False, True], ids=["column", "part of a column"])
def test_no_pickle_is_opened(nested: bool, tmp_path: Path, marker: Path) -> None:
    uri = write_pickles(tmp_path / "part.parquet", marker, nested)

    def read_batches() -> None:
        with open_parquet(uri) as file:
            for batch in file.iter_batches():
                batch.to_pylist()

    readers: list[Callable[[], object]] = [
        lambda: read_table(uri).to_pylist(),
        lambda: read_table(uri, ["mask"])["mask"][0].as_py(),
        lambda: read_parquet(uri, lambda file: file.read_row_group(0).to_pylist()),
        read_batches,
    ]
    for read in readers:
        with pytest.raises(InputError) as caught:
            read()
        message = str(caught.value)
        assert message.startswith(f"{uri}: the column 'mask' is of the type {PICKLED.decode()}")
        assert "\n" not in message
    assert not marker.exists()


def test_the_pickle_would_run(tmp_path: Path, marker: Path) -> None:
    uri = write_pickles(tmp_path / "part.parquet", marker, nested=False)

    pq.read_table(uri)["mask"].to_pylist()

    assert marker.exists()


@pytest.mark.parametrize("format", ["png", "rle"])
def test_an_export_opens_no_pickle(format: str, tmp_path: Path, marker: Path) -> None:
    made = make_segmentation(str(tmp_path), ["a.jpg"])
    [results] = table_uris(f"{made.uri}/results")
    table = pq.read_table(results)
    content = [pickle.dumps(_Marker(marker))]
    metadata = {b"ARROW:extension:name": PICKLED, b"ARROW:extension:metadata": b""}
    for name in ("uri", "mask"):
        place = table.schema.get_field_index(name)
        field = pa.field(name, pa.large_binary(), metadata=metadata)
        table = table.set_column(place, field, pa.array(content, pa.large_binary()))
    pq.write_table(table, results)

    config = ExportConfig(results=made.uri, output=str(tmp_path / "out"), format=format)
    with pytest.raises(InputError, match=f"^{results}: the column 'uri' is of the type"):
        export(config, lambda: None)
    assert not marker.exists()

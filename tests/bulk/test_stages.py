"""Stages by themselves, without Ray."""

from pathlib import Path

import pyarrow as pa

from segray.bulk.stages import MAX_FILE_BYTES, fetch


def test_a_file_too_large_to_be_an_image_is_not_read(tmp_path: Path) -> None:
    scan = tmp_path / "scan.tif"
    scan.write_bytes(b"a few bytes")
    table = pa.table({"id": [1], "uri": [str(scan)], "size": [MAX_FILE_BYTES + 1]})
    [row] = fetch(table).to_pylist()
    assert (row["stage"], row["content"]) == ("fetch", None)
    assert "over the limit" in row["message"]

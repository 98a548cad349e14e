"""The census: an output is read once when a run starts, and once when it ends."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from segray.bulk.config import SegmentConfig
from segray.bulk.plan import make_plan
from segray.bulk.run import segment
from segray.bulk.sample import SHOWN
from segray.storage.tables import read_table, table_uris, write_table
from tests.endpoints import CountingProxy
from tests.endpoints.stores import asking
from tests.support import draw_picture, encode

FILES = SHOWN + 20


def run(config: SegmentConfig) -> None:
    with make_plan(config) as plan:
        segment(plan, on_ray=False)


def split(folder: str) -> None:
    """Write each row of the tables in a folder into a file of its own, longer than its last 64 KB.

    Those come with the first request, and the ids at the beginning of a file with a second one.
    """
    rng = np.random.default_rng(0)
    for uri in table_uris(folder):
        table = read_table(uri)
        for number, row in enumerate(table.to_pylist()):
            mask, text = row.get("mask"), rng.bytes(70_000)
            if mask:
                mask["bytes"] += text
            else:
                row["message"] = text.hex()
            rows = pa.Table.from_pylist([row], table.schema)
            write_table(uri.replace(".parquet", f"-{number}.parquet"), rows)
        write_table(uri, table.slice(0, 0))


def test_a_file_takes_two_requests_at_the_start_and_two_at_the_end(
    s3, s3_endpoint: str, bundle_uri: str, tmp_path: Path
) -> None:
    bucket = s3("requests")
    for number in range(FILES):
        (tmp_path / f"{number}.png").write_bytes(encode(draw_picture(9, 9, number), "PNG"))
        (tmp_path / f"{number}-bad.png").write_bytes(b"no image")
    config = SegmentConfig(model=bundle_uri, images=str(tmp_path), output=f"{bucket}/out")
    run(config)
    for name in ("results", "errors"):
        split(f"{config.output}/{name}")

    with CountingProxy(s3_endpoint) as proxy, asking(proxy.url):
        run(config)

    def requests(folder: str) -> Counter[int]:
        """How many files took so many requests."""
        start = f"requests/out/{folder}/"
        files = {key: count for key, count in proxy.gets.items() if key.startswith(start)}
        return Counter(count for key, count in files.items() if key.count("-") == 3)

    # Of no use for the gallery are 20 files of results, and all of errors.
    assert requests("errors") == {4: FILES}
    found = requests("results")
    assert found[4] == 20
    assert sum(found.values()) == FILES

"""How long a bucket of a million keys takes to be searched, and how much memory.

    python benchmarks/listing.py                       # a million keys, 99 % of them done
    python benchmarks/listing.py --keys 50000

The bucket is a server on loopback that lists made-up keys like S3, a thousand to an answer, and has
no objects. `search` goes through all parts in one process and writes the manifest; nothing is done
yet. `resume` reads the ids of an output in which all but one in a hundred keys have a row, in files
of 512, and then searches. Each is a process of its own; the server has the other core.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro
from figures import describe_machine, write_figures

from segray.bulk.done import read_done
from segray.bulk.search import Filter, Search
from segray.pixels.labels import Labels
from segray.storage.listing import split_listing
from segray.storage.tables import read_tables, results_schema, write_table

ROOT = Path(__file__).parent.parent
_FILE_ROWS = 512


@dataclass(frozen=True)
class ListingBenchmark:
    """Print seconds and memory of a search over a large bucket."""

    keys: int = 1_000_000
    """How many keys the bucket has."""
    pattern: str = "nested"
    """nested: in folders of a thousand; flat: one folder."""
    json: str | None = None
    """File that receives the figures."""


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--child":
        print(json.dumps(search(sys.argv[2], sys.argv[3])))
        return
    config = tyro.cli(ListingBenchmark)
    command = ["-m", "tests.endpoints", "--count", str(config.keys), "--pattern", config.pattern]
    figures: dict[str, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory() as output,
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        environment = {
            **os.environ,
            "AWS_ENDPOINT_URL": server.stdout.readline().strip(),
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        for name in ("search", "resume"):
            child = [sys.executable, __file__, "--child", output, name]
            done = subprocess.run(child, env=environment, stdout=subprocess.PIPE, check=True)
            figures[name] = json.loads(done.stdout)
            if name == "search":
                finish_most(output)
        server.stdin.close()
    print(f"{describe_machine()}; {config.keys} keys, {config.pattern}")
    print(f"{'':<8} {'images':>9} {'missing':>9} {'first s':>8} {'all s':>8} {'peak MB':>8}")
    for name, row in figures.items():
        print(
            f"{name:<8} {row['images']:>9} {row['missing']:>9} {row['first']:>8.1f} "
            f"{row['seconds']:>8.1f} {row['memory']:>8.0f}"
        )
    write_figures(config.json, config, **figures)


def search(output: str, run: str) -> dict[str, Any]:
    """Search the whole bucket for what has no row in an output."""
    begun = time.monotonic()
    done = read_done(output)
    parts = tuple(split_listing("s3://bucket", 32))
    plan = Search(parts, "s3://bucket", Filter((".jpg",)), output, run)
    totals = {"images": 0, "missing": 0}
    first = 0.0
    for part in range(len(parts)):
        counts: dict[str, int] = {}
        for _ in plan.list_and_record(
            part, done, lambda found, counts=counts: counts.update(vars(found))
        ):
            first = first or time.monotonic() - begun
        for name in totals:
            totals[name] += counts[name]
    [peak] = [
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return {
        **totals,
        "first": first,
        "seconds": time.monotonic() - begun,
        "memory": peak / 1024,
    }


def finish_most(output: str) -> None:
    """Write rows of results for all keys that were found but one in a hundred."""
    ids = np.concatenate(
        [table["id"].to_numpy() for table in read_tables(f"{output}/manifest", ["id"])]
    )
    ids = np.delete(ids, np.arange(0, len(ids), 100))
    schema = results_schema(Labels.parse(("pet=1", "background=2", "border=3")))
    mask = {"bytes": bytes(2000), "path": "x.png"}
    for number, start in enumerate(range(0, len(ids), _FILE_ROWS)):
        some = ids[start : start + _FILE_ROWS]
        columns = {field.name: pa.nulls(len(some), field.type) for field in schema}
        columns["id"] = pa.array(some)
        columns["mask"] = pa.array([mask] * len(some), schema.field("mask").type)
        write_table(f"{output}/results/{number:05}.parquet", pa.table(columns, schema=schema))


if __name__ == "__main__":
    main()

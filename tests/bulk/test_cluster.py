"""Segmenting on clusters of unusual kinds."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.processes import ray_cluster
from tests.support import draw_picture, encode

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def one_cpu() -> Iterator[str]:
    """The address of a cluster that has a single CPU."""
    with ray_cluster({**os.environ, "RAY_AUTH_MODE": "disabled"}) as address:
        yield address


def test_one_cpu_is_enough(one_cpu: str, bundle_uri: str, tmp_path: Path) -> None:
    """Predictors that hold it must not keep the search waiting for ever."""
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for number in range(40):
        (images / f"{number}.jpg").write_bytes(encode(draw_picture(30, 40, number), "JPEG"))

    command = [sys.executable, "jobs/segment.py", "--model", bundle_uri]
    command += ["--images", str(images), "--output", str(output)]
    # As the cluster was started; a Ray in this process has left another mode behind.
    environment = {**os.environ, "RAY_ADDRESS": one_cpu, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )

    assert done.returncode == 0, done.stderr
    assert "in this process" not in done.stdout
    # More than one chunk, each passed on by itself.
    assert len(list((output / "results").glob("*.parquet"))) > 1
    assert pq.read_table(output / "results").num_rows == 40

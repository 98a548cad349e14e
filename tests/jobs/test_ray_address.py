"""Clusters that a job cannot be connected to: one line each, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.conftest import CallJob
from tests.processes import ray_cluster

ROOT = Path(__file__).parent.parent.parent


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a job says at its end when it is refused."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from tests.support import draw_picture, encode

    (tmp_path / "a.jpg").write_bytes(encode(draw_picture(30, 40, 0), "JPEG"))
    return tmp_path


def test_the_address_of_the_jobs_api_is_no_cluster(
    bundle_uri: str, folder: Path, call_job: CallJob
) -> None:
    """It stands in the same variable where somebody submits jobs."""
    flags = ["--model", bundle_uri, "--images", str(folder), "--output", str(folder / "out")]
    done = call_job("segment", *flags, cwd=ROOT, RAY_ADDRESS="http://127.0.0.1:8265")
    line = last_line(done)
    assert line.startswith("error: RAY_ADDRESS=http://127.0.0.1:8265 is where jobs are submitted")


def test_a_cluster_that_wants_a_token_is_named(bundle_uri: str, folder: Path) -> None:
    token = folder / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    security = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    command = [sys.executable, "jobs/segment.py", "--model", bundle_uri, "--images", str(folder)]
    with ray_cluster({**os.environ, **security}) as address:
        done = subprocess.run(
            [*command, "--output", str(folder / "out")],
            cwd=ROOT,
            env={**os.environ, "RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            timeout=240,
        )
    line = last_line(done)
    assert line.startswith(f"error: Failed to connect to Ray cluster at {address}: ")
    assert "RAY_AUTH_TOKEN_PATH" in line

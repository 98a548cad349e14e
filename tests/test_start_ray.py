"""What a job needs of the cluster before it begins."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import write_shapes

# Ray counts a GPU on a machine that has none.
NO_GPU = {"RAY_ADDRESS": "local", "RAY_OVERRIDE_RESOURCES": '{"GPU": 1}'}

PROGRAM = """
from segray.job import run_job, start_ray

run_job(lambda: start_ray(use_gpu=True, workers=2))
"""


def test_fewer_gpus_than_workers_are_refused() -> None:
    """Where Ray is started here, no other node can bring the GPU that is missing."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**clean, **NO_GPU},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "error: --use-gpu: each of --workers 2 takes a GPU, and this machine has 1: give "
        "--workers 1, or run on a cluster that has more\n"
    )


def test_a_gpu_that_tensorflow_does_not_find_is_refused_at_the_first_start(tmp_path: Path) -> None:
    """Before any worker is started, and not by training on the CPU."""
    write_shapes(str(tmp_path), 8)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [
            *(sys.executable, "jobs/train.py", "--use-gpu", "--output", str(tmp_path / "out")),
            *("--images", f"{tmp_path}/images", "--masks", f"{tmp_path}/masks"),
            *("--classes", "box=10", "ground=20", "--encoder-weights", "none"),
            *("--image-size", "32", "--epochs", "1"),
        ],
        env={**clean, **NO_GPU},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert "--use-gpu" in result.stderr
    assert socket.gethostname() in result.stderr
    assert "Traceback" not in result.stderr
    assert "compiling" not in result.stdout
    assert not (tmp_path / "out" / "model").exists()


SLOW_AT_FIRST = """
import time
import ray._private.services as services
from segray.job import start_ray

get_node, asked = services.get_node, []

def find_none_at_first(*args):
    asked.append(time.monotonic())
    if asked[-1] - asked[0] < 32:
        time.sleep(0.5)
        raise RuntimeError("not there yet")
    return get_node(*args)

services.get_node = find_none_at_first
start_ray(use_gpu=False)

import ray

print("nodes:", sum(node["Alive"] for node in ray.nodes()))
"""


@pytest.mark.slow
def test_ray_is_started_again_if_it_takes_too_long() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-c", SLOW_AT_FIRST],
        env={**clean, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "Ray did not start within 30 s" in result.stdout
    assert "nodes: 1" in result.stdout

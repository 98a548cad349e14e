"""What a job needs of the cluster before it begins."""

import os
import subprocess
import sys

PROGRAM = """
from segray.job import run_job, start_ray

run_job(lambda: start_ray(use_gpu=True, workers=2))
"""


def test_fewer_gpus_than_workers_are_refused() -> None:
    """Where Ray is started here, no other node can bring the GPU that is missing."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        # Ray counts a GPU on a machine that has none.
        env={**clean, "RAY_ADDRESS": "local", "RAY_OVERRIDE_RESOURCES": '{"GPU": 1}'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "error: --use-gpu: each of --workers 2 takes a GPU, and this machine has 1: give "
        "--workers 1, or run on a cluster that has more\n"
    )

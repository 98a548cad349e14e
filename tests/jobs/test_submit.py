"""Both jobs through `ray job submit`, on a cluster that has the AWS environment and no more."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from segray.storage.files import write_bytes
from segray.storage.tables import read_tables
from tests.support import free_port, write_shapes

ROOT = Path(__file__).parent.parent.parent
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@dataclass(frozen=True)
class Cluster:
    """Where jobs are submitted, and the environment that carries the token."""

    address: str
    security: dict[str, str]


@pytest.fixture(scope="module")
def cluster(aws_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head node that asks for a token, as cluster.yaml's does; its processes stop with it."""
    port = free_port()
    folder = tmp_path_factory.mktemp("cluster")
    python_folder = Path(sys.executable).parent  # jobs call `python`, and mean this one
    log, token = folder / "head.log", folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    security = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with log.open("wb") as output:
        head = subprocess.Popen(
            [
                *RAY,
                "start",
                *("--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
                *(f"--port={free_port()}", f"--dashboard-port={port}"),
                f"--dashboard-agent-listen-port={free_port()}",
            ],
            cwd=folder,
            env={**os.environ, **security, "PATH": f"{python_folder}:{os.environ['PATH']}"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=2).close()
                break
            except OSError:
                assert head.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
        yield Cluster(f"http://127.0.0.1:{port}", security)
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        head.wait()


def submit(cluster: Cluster, *words: str) -> subprocess.CompletedProcess:
    # What the submitter's own shell knows of AWS is of no use to the job: the nodes have theirs.
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [
            *RAY,
            "job",
            "submit",
            f"--address={cluster.address}",
            "--working-dir",
            str(ROOT),
            "--",
            *words,
        ],
        env={**own, **cluster.security},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
def test_train_then_segment(cluster: Cluster, s3: Callable[[str], str], encoder_file: str) -> None:
    bucket = s3("submitted")
    write_shapes(f"{bucket}/data", 20)
    write_bytes(f"{bucket}/encoder.weights.h5", Path(encoder_file).read_bytes())
    trained = submit(
        cluster,
        *("python", "jobs/train.py", "--classes", "box=10", "ground=20"),
        *("--images", f"{bucket}/data/images", "--masks", f"{bucket}/data/masks"),
        *("--encoder-weights", f"{bucket}/encoder.weights.h5", "--output", f"{bucket}/run"),
        *("--image-size", "32", "--epochs", "1", "--batch-size", "8"),
    )
    assert trained.returncode == 0, trained.stdout[-3000:]
    assert "mIoU" in trained.stdout
    segmented = submit(
        cluster,
        *("python", "jobs/segment.py", "--model", f"{bucket}/run/model"),
        *("--images", f"{bucket}/data/images", "--output", f"{bucket}/masks"),
    )
    assert segmented.returncode == 0, segmented.stdout[-3000:]
    assert "segmented 20 of 20 images, 0 failed" in segmented.stdout
    assert sum(len(table) for table in read_tables(f"{bucket}/masks/results", ["id"])) == 20
    assert "test-secret" not in trained.stdout + segmented.stdout


def test_a_failing_job_exits_non_zero(cluster: Cluster) -> None:
    failed = submit(cluster, "python", "jobs/train.py", "--images", "/nowhere", "--masks", "/n")
    assert failed.returncode != 0
    assert "error: cannot list /nowhere: no such folder" in failed.stdout

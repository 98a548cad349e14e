"""The test cluster itself: its nodes are apart, and nothing of it outlives it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import Cluster
from tests.nodes.cluster import ROOT
from tests.processes import descendants, kill

# Has a node that finds no head, says so, and waits.
_HOLD = """
import sys, time
from pathlib import Path
from tests.nodes import Cluster
with Cluster(Path(sys.argv[1])) as cluster:
    cluster.start_node("alone", seconds=0)
    assert cluster.run("hostname", node="alone").wait(30) == 0
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def cluster(
    namespaces: None, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("nodes"), s3_url=s3_endpoint) as cluster:
        cluster.start_autoscaler(cpu_workers=1, gpu_workers=0)
        yield cluster


def test_a_node_has_all_of_its_own(cluster: Cluster) -> None:
    def seen(*command: str) -> str:
        shown = cluster.run(*command, node="head")
        shown.wait(30)
        return shown.output

    assert seen("uname", "-n") == "head\n"
    assert "--node-name=head" in seen("cat", "/proc/1/cmdline")
    assert seen("ls", "-A", "/tmp/home") == ""
    assert "No such file" in seen("ls", f"{ROOT}/jobs")
    assert "No such file" in seen("ls", f"{cluster.folder}/log")
    assert "10.77.0.10" in seen("ip", "-brief", "address")


def test_what_is_submitted_is_all_that_a_job_has(
    cluster: Cluster, tmp_path: Path, s3_endpoint: str
) -> None:
    (tmp_path / "sent.txt").write_text("here")
    script = f"cat sent.txt; ls {tmp_path}; echo $AWS_ENDPOINT_URL"
    job = cluster.submit("sh", "-c", script, folder=tmp_path)
    assert job.wait(60) == 0, job.output
    assert "\nhere" in job.output
    assert f"cannot access '{tmp_path}'" in job.output
    assert "http://10.77.0.1:5000" in job.output


def test_a_node_comes_when_a_task_asks_for_it(cluster: Cluster) -> None:
    assert [node.name for node in cluster.nodes()] == ["head"]
    script = "import ray; print('sum:', ray.get(ray.remote(num_cpus=2)(lambda: 1 + 2).remote()))"
    job = cluster.submit("python", "-c", script, folder=cluster.folder / "log")
    assert job.wait(120) == 0, job.output
    assert "\nsum: 3\n" in job.output
    assert any(node.resources.get("CPU") == 2 for node in cluster.nodes())


@pytest.mark.usefixtures("namespaces")
def test_nothing_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "nodes")], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert holder.stdout
    with holder.stdout:
        assert holder.stdout.readline() == b"there\n"
    below = descendants(holder.pid)
    assert any("alone" in command for command in below.values())
    assert any("moto" in command for command in below.values())
    kill(holder.pid)
    holder.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in below):
        assert time.monotonic() < deadline, below
        time.sleep(0.1)

"""Processes that tests start and kill."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_CLUSTER = """
import ray, sys
ray.init("local", num_cpus=1, include_dashboard=False)
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def descendants(pid: int) -> dict[int, str]:
    """The command lines of all processes below one, by their ids."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name in brackets may hold anything; what follows is numbers.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
            commands[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue  # it has just ended
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: commands[child] for child in below - {pid} if child in commands}


def kill(pid: int) -> None:
    """`kill -9`; nothing if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def ray_cluster(environment: Mapping[str, str]) -> Iterator[str]:
    """Run a Ray of one CPU in a process of its own; yields the address that jobs connect to."""
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        assert cluster.stdout
        yield next(line.split()[1] for line in cluster.stdout if line.startswith("address"))
        cluster.communicate(timeout=60)

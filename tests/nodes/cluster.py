"""A cluster of nodes that are apart: a head, workers that come and go, and S3 between them."""

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.endpoints import CountingProxy, moto_server
from tests.nodes.autoscaler import Autoscaler
from tests.nodes.client import Client
from tests.nodes.machine import find_obstacle
from tests.nodes.network import Network
from tests.nodes.node import Node, Plan

ROOT = Path(__file__).parent.parent.parent
HEAD = "10.77.0.10"

_RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_S3_PORT, _GCS_PORT, _JOBS_PORT = 5000, 6379, 8265
_STORE_BYTES = 300_000_000
_STARTS = 3  # of a node, before it is given up

#: What S3 takes, on the nodes and here.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test-key",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Member:
    """A node as Ray knows it.

    Attributes:
        name: that it was started by; the address of one that the autoscaler has started.
        is_alive: whether it takes part.
        resources: what it has, by Ray's names.
    """

    name: str
    is_alive: bool
    resources: Mapping[str, float]


class Cluster:
    """Nodes that are really apart, as long as its ``with`` block lasts.

    All that it has started ends with the block, and also with the process, whatever ends that.

    Attributes:
        s3: between the nodes and the store; counts what they ask for.
        s3_url: of the store, for this process.
    """

    def __init__(
        self,
        folder: Path,
        hide: Iterable[Path] = (ROOT,),
        s3_url: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare it; nothing runs before its ``with`` block.

        Args:
            folder: receives the nodes' disks, and their logs in ``log/``.
            hide: folders that no node sees, beside /tmp. The Python environment is always seen.
            s3_url: of the store that the nodes find at 10.77.0.1:5000; None for one of its own.
            env: more of the environment that nodes and jobs have.
        """
        self.folder = folder.resolve()
        self._hidden = [*dict.fromkeys(["/tmp", *(str(path.resolve()) for path in hide)])]
        self._s3_url = s3_url
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": "/tmp/home",
            "LANG": "C.UTF-8",
            # Workers would run at nice 15, and be starved by whatever else the machine does.
            "RAY_worker_niceness": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            # It is the memory of the whole machine, which other work may fill, that a node of Ray
            # looks at before it ends its processes.
            "RAY_memory_monitor_refresh_ms": "0",
            "AWS_ENDPOINT_URL": f"http://{Network.gateway}:{_S3_PORT}",
            **CREDENTIALS,
            **(env or {}),
        }
        self._nodes: dict[str, Node] = {}
        self._clients: list[Client] = []

    def __enter__(self) -> Self:
        if obstacle := find_obstacle():
            raise RuntimeError(obstacle)
        (self.folder / "log").mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self.network = stack.enter_context(Network())
            self.s3_url = self._s3_url or stack.enter_context(moto_server())
            self.s3 = CountingProxy(self.s3_url)
            self.s3.listener = self.network.listen(_S3_PORT)
            stack.enter_context(self.s3)
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        for client in self._clients:
            client.end()
        for node in self._nodes.values():
            node.kill()

    def start_head(self) -> None:
        """Start a head of 0 CPUs, and wait until it takes jobs."""
        self._start_head()

    def start_autoscaler(
        self, cpu_workers: int, gpu_workers: int, idle_minutes: float = 1.0
    ) -> None:
        """Start a head of 0 CPUs that starts nodes when they are asked for.

        They are processes within the head: apart from this machine, and not from one another.

        Args:
            cpu_workers: how many nodes of 2 CPUs there may be.
            gpu_workers: how many nodes of 2 CPUs and a GPU there may be; the GPU is none.
            idle_minutes: after which a node that does nothing ends.
        """
        scaler = Autoscaler.prepare(
            self.folder / "autoscaler", cpu_workers, gpu_workers, idle_minutes
        )
        copy, original = scaler.provider
        self._start_head(
            scaler.flag,
            environment=scaler.environment,
            kept=[str(scaler.folder)],
            replaced={original: str(copy)},
        )

    def start_node(self, name: str, cpus: int = 2, gpus: int = 0, *, seconds: float = 120) -> None:
        """Start a worker, and wait until it takes part.

        Args:
            name: its host name, which no running node has.
            cpus: how many it says it has.
            gpus: likewise; there are none.
            seconds: to wait for it; 0 for not at all.
        """
        flags = [f"--address={HEAD}:{_GCS_PORT}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        for attempt in range(1, _STARTS + 1):
            self._start(name, *flags)
            if not seconds:
                return
            try:
                return self._await(name, lambda: self._is_alive(name), seconds)
            except AssertionError:
                # Ray ends a node whose processes are not up within 15 s, as on a busy machine.
                if self._nodes[name].is_up or attempt == _STARTS:
                    raise
                self.kill_node(name)

    def kill_node(self, name: str) -> None:
        """SIGKILL to a node with all that runs on it, as when a machine loses its power.

        Ray takes half a minute to notice it. The name may be used again.
        """
        assert name in self._nodes, f"there is no node {name}"
        self._nodes.pop(name).kill()

    def stop_node(self, name: str) -> None:
        """End a node that Ray knows it has lost at once, as when a machine is shut down."""
        assert name in self._nodes, f"there is no node {name}"
        self._nodes[name].terminate("raylet")
        self._await(name, lambda: not self._is_alive(name), 30)
        self.kill_node(name)

    def nodes(self) -> list[Member]:
        """The nodes that Ray knows, the dead ones among them."""
        answer = self._ask("/api/v0/nodes?detail=1&limit=1000")
        return [
            Member(row["node_name"], row["state"] == "ALIVE", row["resources_total"])
            for row in answer["data"]["result"]["result"]
        ]

    def requests(self, name: str) -> int:
        """How many requests a node has sent to S3: none before it does any work."""
        return self.s3.askers[self._nodes[name].address]

    def submit(self, *command: str, folder: Path = ROOT) -> Client:
        """Submit a job, with a folder for its working directory.

        The client's own environment knows nothing of S3: nodes have theirs.
        """
        words = [*_RAY, "job", "submit", f"--address=http://{HEAD}:{_JOBS_PORT}"]
        words += ["--working-dir", ".", "--", *command]
        own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return self._client([*self.network.entrance, *words], own, folder)

    def run(self, *command: str, node: str | None = None, folder: Path = ROOT) -> Client:
        """Run a command beside the cluster, in a folder of this machine, or in a node."""
        environment = {**self._environment, "RAY_API_SERVER_ADDRESS": f"http://{HEAD}:{_JOBS_PORT}"}
        place: Network | Node = self._nodes[node] if node else self.network
        return self._client([*place.entrance, *command], environment, folder)

    def _client(self, command: list[str], environment: Mapping[str, str], folder: Path) -> Client:
        log = self.folder / "log" / f"client{len(self._clients)}.log"
        client = Client(command, environment, folder, log)
        self._clients.append(client)
        return client

    def _start_head(self, *flags: str, **more: Any) -> None:
        assert not self._nodes, "there is a head already"
        own = ("--head", f"--port={_GCS_PORT}", "--dashboard-host=0.0.0.0", "--num-cpus=0")
        self._start("head", *own, *flags, **more)
        self._await("head", self._takes_jobs, 120)

    def _start(
        self,
        name: str,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        kept: Sequence[str] = (),
        replaced: Mapping[str, str] | None = None,
    ) -> None:
        assert name not in self._nodes, f"there is a node {name} already"
        address = self.network.next_address()
        command = [*_RAY, "start", "--block", f"--node-name={name}", f"--node-ip-address={address}"]
        plan = Plan(
            name=name,
            address=address,
            network=self.network.descriptor,
            disk=str(self.folder / f"{name}-{address}"),
            command=[*command, f"--object-store-memory={_STORE_BYTES}", *flags],
            hidden=self._hidden,
            kept=[sys.prefix, sys.base_prefix, *kept],
            replaced=replaced or {},
        )
        log = self.folder / "log" / f"{name}-{address}.log"
        self._nodes[name] = Node(plan, {**self._environment, **(environment or {})}, log)

    def _await(self, name: str, is_so: Callable[[], bool], seconds: float) -> None:
        node, deadline = self._nodes[name], time.monotonic() + seconds
        while not is_so():
            assert node.is_up, f"{name} has ended: {node.log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"{name}: {node.log.read_text()[-3000:]}"
            time.sleep(0.2)

    def _takes_jobs(self) -> bool:
        try:
            self._ask("/api/jobs/")
        except (OSError, http.client.HTTPException, ValueError):
            return False
        return True

    def _is_alive(self, name: str) -> bool:
        return any(node.name == name and node.is_alive for node in self.nodes())

    def _ask(self, path: str) -> Any:
        """What the head's HTTP server answers, from JSON."""
        connection = http.client.HTTPConnection(HEAD, _JOBS_PORT)
        connection.sock = self.network.connect(HEAD, _JOBS_PORT, 30)
        try:
            connection.request("GET", path)
            return json.load(connection.getresponse())
        finally:
            connection.close()

"""The nodes of a Ray cluster: what they have to give, and whether they see a job's files."""

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segray.errors import InputError
from segray.ticker import ticking

#: Between two lines that say what is waited for.
WAITING_SECONDS = 30.0

_SECONDS_BETWEEN_POLLS = 1.0
# A process has to be started for it.
_SECONDS_TO_LOOK = 120.0
# For how long what was seen of the free CPUs is taken to hold.
_SECONDS_BETWEEN_LOOKS = 5.0

# How many nodes a line names; of more it gives the number.
_NAMED = 4


@dataclass(frozen=True)
class Node:
    """A node that is up and has CPUs or GPUs to give.

    Attributes:
        id: Ray's.
        name: its host name.
        total: how much it has of each resource, by Ray's names of them.
        free: how much of that nobody holds.
    """

    id: str
    name: str
    total: Mapping[str, float]
    free: Mapping[str, float]


def worker_nodes() -> list[Node]:
    """The nodes that do work: a head without CPUs and GPUs is none of them."""
    # A developer's API under a private name: Ray has no public one that tells what is free where.
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            node["Resources"],
            free.get(node["NodeID"], {}),
        )
        for node in ray.nodes()
        if node["Alive"] and (node["Resources"].get("CPU") or node["Resources"].get("GPU"))
    ]


def name_resources(resources: Mapping[str, float]) -> str:
    """Resources in words, as in "2 CPUs and 1 GPU"."""
    return " and ".join(
        f"{amount:g} {kind}{'' if amount == 1 else 's'}" for kind, amount in resources.items()
    )


def waiting_line(what: str, asked: Mapping[str, float]) -> str:
    """Say what is waited for, and what the nodes have of it.

    Args:
        what: asks for room, as in "2 workers".
        asked: the resources that each one of it needs on one node.
    """
    nodes = [node for node in worker_nodes() if all(node.total.get(kind) for kind in asked)]
    if not nodes:
        return (
            f"waiting for room for {what} with {name_resources(asked)} each: no node has a "
            f"{' and a '.join(asked)} yet"
        )
    parts = [
        f"{node.name} has "
        + " and ".join(
            f"{_rounded(node.free.get(kind, 0.0))} of {node.total.get(kind, 0.0):g} {kind}s"
            for kind in asked
        )
        + " free"
        for node in nodes[:_NAMED]
    ]
    if len(nodes) > _NAMED:
        parts.append(f"and there are {len(nodes) - _NAMED} more nodes")
    return f"waiting for room for {what} with {name_resources(asked)} each: {', '.join(parts)}"


@contextlib.contextmanager
def telling_waits(
    what: str,
    asked: Mapping[str, float],
    is_waiting: Callable[[], bool],
    tell: Callable[[str], None],
) -> Iterator[None]:
    """While the block runs, say every 30 seconds what is waited for, as `waiting_line` does.

    Where a node has room, it is not room that is waited for, and nothing is said.

    Args:
        what: asks for room, as in "2 workers".
        asked: the resources that each one of it needs on one node.
        is_waiting: whether anything is waited for now.
        tell: is called with lines for the user's terminal.
    """

    def look() -> None:
        # What cannot be told now is told the next time.
        with contextlib.suppress(RayError):
            if is_waiting() and not any(_fits(asked, node) for node in worker_nodes()):
                tell(waiting_line(what, asked))

    with ticking(WAITING_SECONDS, look):
        yield


def await_node(kind: str, what: str, tell: Callable[[str], None]) -> None:
    """Wait until a node has CPUs, or GPUs; a cluster that grows is asked for one.

    Args:
        kind: ``CPU`` or ``GPU``.
        what: waits, in words.
        tell: is called with lines for the user's terminal.
    """

    def is_missing() -> bool:
        return not any(node.total.get(kind) for node in worker_nodes())

    if not is_missing():
        return
    asking = do_nothing.options(num_cpus=int(kind == "CPU"), num_gpus=int(kind == "GPU")).remote()
    try:
        with telling_waits(what, {kind: 1.0}, is_missing, tell):
            while is_missing():
                time.sleep(_SECONDS_BETWEEN_POLLS)
    finally:
        ray.cancel(asking)


@ray.remote(max_retries=0)
def do_nothing() -> None:
    """A task that a cluster grows for, by what it is given to ask for."""


def _fits(asked: Mapping[str, float], node: Node) -> bool:
    return all(node.free.get(kind, 0.0) >= amount for kind, amount in asked.items())


def _rounded(amount: float) -> str:
    return f"{amount:.1f}".removesuffix(".0")


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Keep an actor on the node of this process, so that no other node's end takes it away."""
    here = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(here, soft=False)


@dataclass(frozen=True)
class SharedFiles:
    """Local files that every node which does work for a job has to see as the job does.

    Attributes:
        sizes: of each file, by the flag that it belongs to and its path, in bytes.
    """

    sizes: tuple[tuple[str, str, int], ...] = ()

    @classmethod
    def of(cls, files: Mapping[str, str | None]) -> "SharedFiles":
        """Note the files that are local.

        Args:
            files: by their flags; URIs of S3, None, and files that are not there are left out.
        """
        return cls(
            tuple(
                (flag, uri, Path(uri).stat().st_size)
                for flag, uri in files.items()
                if uri is not None and Path(uri).is_file()
            )
        )

    def check(self) -> None:
        """Make sure that this process sees the files.

        Raises:
            InputError: it does not, or sees others in their place.
        """
        for flag, uri, size in self.sizes:
            with contextlib.suppress(OSError):
                if Path(uri).stat().st_size == size:
                    continue
            path = Path(uri)
            raise InputError(
                f"{flag}: on the node {socket.gethostname()} the folder {path.parent} is not the "
                f"one that the job sees, with {path.name} in it: on several nodes, files have to "
                "be in S3 or on a file system that all of them share"
            )

    def check_nodes(self) -> None:
        """Make sure that the nodes that are there now see the files.

        Processes on nodes that join later have to call `check` themselves.

        Raises:
            InputError: one of them does not.
        """
        if not self.sizes:
            return
        here = ray.get_runtime_context().get_node_id()
        others = [node for node in worker_nodes() if node.id != here]
        checks = [
            _find_problem.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            ).remote(self)
            for node in others
        ]
        for node, check in zip(others, checks, strict=True):
            try:
                problem = ray.get(check, timeout=_SECONDS_TO_LOOK)
            except GetTimeoutError:
                problem = f"the node {node.name} does not look at its files: is a file system gone?"
            except RayError:
                continue  # a node that has just gone does no work
            if problem:
                raise InputError(problem)


@ray.remote(num_cpus=0, max_retries=0)
def _find_problem(files: SharedFiles) -> str:
    try:
        files.check()
    except InputError as error:
        return str(error)
    return ""


def first_file(folder: str) -> str | None:
    """The path of some file in a local folder, the same each time; None if there is none."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        if names:
            return str(Path(parent, min(names)))
    return None


def works_alone() -> bool:
    """Whether all work is done on the node of this process: it has CPUs, and there is no other."""
    nodes = worker_nodes()
    return [node.id for node in nodes] == [ray.get_runtime_context().get_node_id()]


class FreeCpus:
    """The CPUs of a cluster that nobody holds, for tasks that make use of them for a moment.

    Args:
        sharers: how many processes do so at the same time; each takes its part.
    """

    def __init__(self, sharers: int) -> None:
        self._sharers = sharers
        self._lock = threading.Lock()
        self._looked, self._count, self._taken = -math.inf, 0, 0

    def count(self) -> int:
        """How many this process may use, those that it uses now among them."""
        with self._lock:
            if time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
                self._looked = time.monotonic()
                free = sum(int(node.free.get("CPU", 0.0)) for node in worker_nodes())
                self._count = self._taken + free // self._sharers
            return self._count

    @contextlib.contextmanager
    def one(self) -> Iterator[bool]:
        """Take one for the block, if there is one."""
        count = self.count()
        with self._lock:
            found = self._taken < count
            self._taken += found
        try:
            yield found
        finally:
            with self._lock:
                self._taken -= found

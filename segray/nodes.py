"""The nodes of a Ray cluster: their resources, and whether they see a job's files."""

import contextlib
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from segray.errors import InputError
from segray.ticker import ticking

log = logging.getLogger(__name__)

#: The interval of lines about what a job is waiting for.
WAITING_SECONDS = 30.0

_SECONDS_BETWEEN_POLLS = 1.0
# Long enough for a process to be started.
_SECONDS_TO_LOOK = 120.0
# The time for which a count of idle CPUs is considered valid.
_SECONDS_BETWEEN_LOOKS = 5.0

# The maximum number of nodes named in a line; of the others it gives the number.
_NAMED = 4


@dataclass(frozen=True)
class Node:
    """A running node with CPUs or GPUs.

    Attributes:
        id: its Ray id.
        name: its host name.
        total: its resources, by Ray's names.
        free: those of its resources that nobody holds.
    """

    id: str
    name: str
    total: Mapping[str, float]
    free: Mapping[str, float]


def worker_nodes() -> list[Node]:
    """Return the nodes that do work, which excludes a head without CPUs and GPUs."""
    # Ray has no public function for the free resources of each node (ray-project/ray#60134).
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
    """Name resources in words, as in "2 CPUs and 1 GPU"."""
    return " and ".join(
        f"{amount:g} {kind}{'' if amount == 1 else 's'}" for kind, amount in resources.items()
    )


def waiting_line(what: str, asked: Mapping[str, float]) -> str:
    """Return a line about what a job is waiting for and what the nodes have of it.

    Args:
        what: what needs room, as in "2 workers".
        asked: the resources that each of them needs on one node.
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
def reporting_waits(
    what: str,
    asked: Mapping[str, float],
    is_waiting: Callable[[], bool],
) -> Iterator[None]:
    """Print what a job is waiting for every 30 seconds while the block runs, see `waiting_line`.

    Nothing is printed if a node has room, because room is then not what it is waiting for.

    Args:
        what: what needs room, as in "2 workers".
        asked: the resources that each of them needs on one node.
        is_waiting: returns True while the job is waiting.
    """

    def look() -> None:
        # What cannot be printed now is printed the next time.
        with contextlib.suppress(RayError):
            if is_waiting() and not any(_fits(asked, node) for node in worker_nodes()):
                log.info(waiting_line(what, asked))

    with ticking(WAITING_SECONDS, look):
        yield


def await_node(kind: str, what: str) -> None:
    """Wait until a node has CPUs or GPUs; an autoscaling cluster is asked for one.

    Args:
        kind: ``CPU`` or ``GPU``.
        what: what is waiting, in words.
    """

    def is_missing() -> bool:
        return not any(node.total.get(kind) for node in worker_nodes())

    if not is_missing():
        return
    asking = do_nothing.options(num_cpus=int(kind == "CPU"), num_gpus=int(kind == "GPU")).remote()
    try:
        with reporting_waits(what, {kind: 1.0}, is_missing):
            while is_missing():
                time.sleep(_SECONDS_BETWEEN_POLLS)
    finally:
        ray.cancel(asking)


@ray.remote(max_retries=0)
def do_nothing() -> None:
    """A task whose only purpose is to request resources from an autoscaling cluster."""


def _fits(asked: Mapping[str, float], node: Node) -> bool:
    return all(node.free.get(kind, 0.0) >= amount for kind, amount in asked.items())


def _rounded(amount: float) -> str:
    return f"{amount:.1f}".removesuffix(".0")


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Keep an actor on the node of this process, so that it does not depend on another node."""
    here = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(here, soft=False)


@dataclass(frozen=True)
class SharedFiles:
    """Local files that each working node must see exactly as the job does.

    Attributes:
        sizes: for each flag its files, one of which has to be seen: their paths, and their sizes in
            bytes.
    """

    sizes: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()

    @classmethod
    def of(cls, files: Mapping[str, str | Sequence[str] | None]) -> "SharedFiles":
        """Record those files that are local.

        Args:
            files: by flag, a file that has to be seen; or several, if some of them may vanish while
                the job runs. S3 URIs, None, and missing files are left out.
        """
        sizes = []
        for flag, given in files.items():
            uris = [given] if isinstance(given, str) else given or []
            if found := tuple(
                (uri, Path(uri).stat().st_size) for uri in uris if Path(uri).is_file()
            ):
                sizes.append((flag, found))
        return cls(tuple(sizes))

    def check(self) -> None:
        """Verify that this process sees the files.

        Raises:
            InputError: it does not, or sees other files in their place.
        """
        for flag, files in self.sizes:
            if any(_is_seen(*file) for file in files):
                continue
            path = Path(files[0][0])
            raise InputError(
                f"{flag}: on the node {socket.gethostname()} the folder {path.parent} is not the "
                f"one that the job sees, with {path.name} in it: on several nodes, files have to "
                "be in S3 or on a file system that all of them share"
            )

    def check_nodes(self) -> None:
        """Verify that all present nodes see the files.

        Processes on nodes that join later have to call `check` themselves.

        Raises:
            InputError: a node does not see them.
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
                continue  # a node that is gone does no work
            if problem:
                raise InputError(problem)


@ray.remote(num_cpus=0, max_retries=0)
def _find_problem(files: SharedFiles) -> str:
    try:
        files.check()
    except InputError as error:
        return str(error)
    return ""


def _is_seen(uri: str, size: int) -> bool:
    try:
        return Path(uri).stat().st_size == size
    except OSError:
        return False


def first_files(folder: str) -> list[str]:
    """Return the first files in a local folder: two of each folder in it, some eight in all."""
    files: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in names if not name.startswith("."))
        files += [str(Path(parent, name)) for name in shown[:2]]
        if len(files) >= 8:
            break
    return files


def works_alone() -> bool:
    """Return True if the node of this process has CPUs and is the only node that does work."""
    nodes = worker_nodes()
    return [node.id for node in nodes] == [ray.get_runtime_context().get_node_id()]


class FreeCpus:
    """The idle CPUs of a cluster, for short tasks.

    Args:
        sharers: the number of processes that use them at the same time; each takes an equal share.
    """

    def __init__(self, sharers: int) -> None:
        self._sharers = sharers
        self._lock = threading.Lock()
        self._looked, self._count, self._taken = -math.inf, 0, 0

    def count(self) -> int:
        """Return the number of CPUs that this process may use, including those in use."""
        with self._lock:
            if time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
                self._looked = time.monotonic()
                free = sum(int(node.free.get("CPU", 0.0)) for node in worker_nodes())
                self._count = self._taken + free // self._sharers
            return self._count

    @contextlib.contextmanager
    def one(self) -> Iterator[bool]:
        """Take a CPU for the block; yield False if none is idle."""
        count = self.count()
        with self._lock:
            found = self._taken < count
            self._taken += found
        try:
            yield found
        finally:
            with self._lock:
                self._taken -= found

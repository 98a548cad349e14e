"""The fleet: the nodes that a run has at present, and the workers on them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fleet:
    """The nodes of a run, most of which are of one kind.

    Attributes:
        nodes: number of nodes that do work.
        kind: resources of a node of the most frequent kind, in words.
        workers: worker processes that the run has on all nodes.
        workers_per_node: those that it would have on each of many nodes of that kind.
        most_workers: those that it may have at all.
        cpus_of_job: CPUs of the node that Ray's part of the job shares with the workers; 0 if it
            has a node of its own, or there is no Ray.
    """

    nodes: int
    kind: str
    workers: int
    workers_per_node: int
    most_workers: int
    cpus_of_job: float

"""Batches: which examples make a step, and which of them are whose."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step.

    Attributes:
        indices: int64 [b], which examples.
        flips: bool [b], which of them are mirrored left to right.
    """

    indices: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many full batches `count` examples give; one at least."""
    return max(1, count // batch_size)


def draw_epoch(
    count: int, batch_size: int, seed: int, epoch: int, rank: int, workers: int
) -> Iterator[Batch]:
    """Shuffle the examples anew and deal each global batch out to the workers.

    Every worker draws the same global batches and takes its own share, so that what a step learns
    from does not depend on how many workers there are, and every worker makes equally many steps.
    A remainder that fills no batch waits for another epoch's order; fewer examples than a batch
    are repeated to fill it.

    Args:
        count: how many examples there are in all.
        batch_size: examples in a global batch, a multiple of `workers`.
        seed: of the run.
        epoch: of the run, from 1.
        rank: of this worker, from 0.
        workers: how many there are.
    """
    rng = np.random.default_rng([seed, epoch])
    steps = steps_per_epoch(count, batch_size)
    order = np.resize(rng.permutation(count), steps * batch_size)
    flips = rng.random(len(order)) < 0.5
    share = batch_size // workers
    for step in range(steps):
        start = step * batch_size + rank * share
        yield Batch(order[start : start + share], flips[start : start + share])

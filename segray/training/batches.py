"""Batches: which examples make a step, how they are changed, and which of them are whose."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.training.augmentation import Augmentation


@dataclass(frozen=True)
class Draw:
    """One worker's share of a step, as drawn; the examples themselves are not read yet.

    Attributes:
        indices: int64 [b], which examples.
        warps: float32 [b, 8], see `segray.training.augmentation.Augmentation.draw_warps`.
        colours: float32 [b, 3, 4], see `Augmentation.draw_colours`.
    """

    indices: npt.NDArray[np.int64]
    warps: npt.NDArray[np.float32]
    colours: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step.

    Attributes:
        images: uint8 [b, M, M, 3] RGB.
        masks: uint8 [b, M, M] of class ids or `segray.pixels.labels.IGNORED`.
        warps: float32 [b, 8].
        colours: float32 [b, 3, 4].
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    warps: npt.NDArray[np.float32]
    colours: npt.NDArray[np.float32]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many full batches `count` examples give; one at least."""
    return max(1, count // batch_size)


def draw_epoch(
    count: int,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int,
    workers: int,
    augmentation: Augmentation,
    size: int,
    source_size: int,
) -> Iterator[Draw]:
    """Shuffle the examples anew and deal each global batch out to the workers.

    Every worker draws the same global batches and takes its own share, so that what a step learns
    from does not depend on how many workers there are, and every worker makes equally many steps.
    Shares differ by one image at most.
    A remainder that fills no batch waits for another epoch's order; fewer examples than a batch
    are repeated to fill it.

    Args:
        count: how many examples there are in all.
        batch_size: examples in a global batch, at least as many as `workers`.
        seed: of the run.
        epoch: of the run, from 1.
        rank: of this worker, from 0.
        workers: how many there are.
        augmentation: how far examples are changed.
        size: S, the side of the images that the network sees, in pixels.
        source_size: M, the side of those that they are cut out of, in pixels.
    """
    rng = np.random.default_rng([seed, epoch])
    steps = steps_per_epoch(count, batch_size)
    order = np.resize(rng.permutation(count), steps * batch_size)
    mine = slice(rank * batch_size // workers, (rank + 1) * batch_size // workers)
    for start in range(0, len(order), batch_size):
        warps = augmentation.draw_warps(rng, batch_size, size, source_size)
        colours = augmentation.draw_colours(rng, batch_size)
        yield Draw(order[start : start + batch_size][mine], warps[mine], colours[mine])

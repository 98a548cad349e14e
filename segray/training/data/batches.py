"""Batches: the random composition of each training step, and each worker's share of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.training.data.augmentation import Augmentation


@dataclass(frozen=True)
class Draw:
    """One worker's share of a step, as drawn, before its examples are read.

    Attributes:
        indices: int64 [b], the indices of the examples.
        warps: float32 [b, 8], see `segray.training.data.augmentation.Augmentation.draw_warps`.
        colours: float32 [b, 3, 4], see `Augmentation.draw_colours`.
        degradations: float32 [b, 2], see `Augmentation.draw_degradations`.
        seeds: int32 [b, 2], the seed of each example's noise.
        places: float64 [b, 7], random numbers from 0 to 1 for the place of a crop, see
            `segray.training.data.crops.place_crops`.
    """

    indices: npt.NDArray[np.int64]
    warps: npt.NDArray[np.float32]
    colours: npt.NDArray[np.float32]
    degradations: npt.NDArray[np.float32]
    seeds: npt.NDArray[np.int32]
    places: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """One worker's share of a step, with its examples.

    Attributes:
        images: uint8 [b, h, w, 3] RGB, at the resolution at which they are cached.
        masks: uint8 [b, h, w] of class ids or `segray.pixels.labels.IGNORED`.
        warps: float32 [b, 8].
        colours: float32 [b, 3, 4].
        degradations: float32 [b, 2].
        seeds: int32 [b, 2].
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    warps: npt.NDArray[np.float32]
    colours: npt.NDArray[np.float32]
    degradations: npt.NDArray[np.float32]
    seeds: npt.NDArray[np.int32]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of full batches in `count` examples, at least 1."""
    return max(1, count // batch_size)


def draw_epoch(
    count: int,
    batch_size: int,
    seed: int,
    epoch: int,
    rank: int,
    workers: int,
    augmentation: Augmentation,
    shape: tuple[int, int],
    source_shape: tuple[int, int],
    margins: tuple[int, int] = (0, 0),
) -> Iterator[Draw]:
    """Shuffle the examples of an epoch and deal each global batch out to the workers.

    Every worker draws the same global batches and takes its own share of each. The data of a step
    therefore do not depend on the number of workers, and all workers take the same number of steps.
    Shares differ by at most one image.
    Examples left over after the last full batch are dropped for this epoch; if there are fewer
    examples than a batch, they are repeated to fill it.

    Args:
        count: the number of all examples.
        batch_size: examples in a global batch, at least as many as `workers`.
        seed: the seed of the run.
        epoch: the epoch, from 1.
        rank: the rank of this worker, from 0.
        workers: the number of workers.
        augmentation: the ranges of the random augmentation.
        shape: the input resolution of the network: height and width, in pixels.
        source_shape: the resolution of what is augmented to that, likewise.
        margins: the rows above and below of it, and the columns left and right, in which the
            augmentation finds more of the image.
    """
    rng = np.random.default_rng([seed, epoch])
    rng_of_places = np.random.default_rng([seed, epoch, 1])
    rng_of_degradations = np.random.default_rng([seed, epoch, 2])
    steps = steps_per_epoch(count, batch_size)
    order = np.resize(rng.permutation(count), steps * batch_size)
    mine = slice(rank * batch_size // workers, (rank + 1) * batch_size // workers)
    for start in range(0, len(order), batch_size):
        warps = augmentation.draw_warps(rng, batch_size, shape, source_shape)
        warps[:, (5, 2)] += margins
        colours = augmentation.draw_colours(rng, batch_size)
        places = rng_of_places.random((batch_size, 7))
        degradations = augmentation.draw_degradations(rng_of_degradations, batch_size)
        seeds = rng_of_degradations.integers(2**31, size=(batch_size, 2), dtype=np.int32)
        indices = order[start : start + batch_size]
        changes = warps[mine], colours[mine], degradations[mine], seeds[mine]
        yield Draw(indices[mine], *changes, places[mine])

import numpy as np
import pytest

from segray.training.batches import draw_epoch, steps_per_epoch


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
def test_workers_share_the_same_global_batches(workers: int) -> None:
    """What a step learns from does not depend on how many workers there are."""
    alone = list(draw_epoch(40, 6, seed=1, epoch=2, rank=0, workers=1))
    shares = [list(draw_epoch(40, 6, 1, 2, rank, workers)) for rank in range(workers)]
    for step, batch in enumerate(alone):
        together = np.concatenate([share[step].indices for share in shares])
        np.testing.assert_array_equal(together, batch.indices)
        flips = np.concatenate([share[step].flips for share in shares])
        np.testing.assert_array_equal(flips, batch.flips)


def test_an_epoch_shows_no_example_twice_and_leaves_out_less_than_a_batch() -> None:
    seen = np.concatenate([batch.indices for batch in draw_epoch(40, 6, 0, 1, 0, 1)])
    assert len(seen) == len(set(seen.tolist())) == 36


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [i for b in draw_epoch(32, 8, seed, epoch, 0, 1) for i in b.indices.tolist()]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


@pytest.mark.parametrize(("count", "workers"), [(1, 4), (3, 4), (7, 2)])
def test_fewer_examples_than_a_batch_are_repeated(count: int, workers: int) -> None:
    """Every worker makes the same number of steps of the same size, so none waits for ever."""
    shares = [list(draw_epoch(count, 8, 0, 1, rank, workers)) for rank in range(workers)]
    assert {len(share) for share in shares} == {steps_per_epoch(count, 8)} == {1}
    assert {len(share[0].indices) for share in shares} == {8 // workers}
    seen = np.concatenate([share[0].indices for share in shares])
    assert set(seen.tolist()) == set(range(count))


def test_about_half_of_the_examples_are_flipped() -> None:
    flips = np.concatenate([batch.flips for batch in draw_epoch(2000, 10, 0, 1, 0, 1)])
    assert 0.45 < flips.mean() < 0.55

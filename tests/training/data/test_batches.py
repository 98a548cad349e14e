import numpy as np
import pytest

from segray.training.data.augmentation import Augmentation
from segray.training.data.batches import Draw, draw_epoch, steps_per_epoch

AUGMENTATION = Augmentation(zoom=(0.7, 1.1), stretch=0.1, rotation=10, colour=0.2, blur=2, noise=10)
SHAPE = (64, 64)


def draw(
    count: int, batch_size: int, seed: int = 0, epoch: int = 1, rank: int = 0, workers: int = 1
) -> list[Draw]:
    return list(
        draw_epoch(count, batch_size, seed, epoch, rank, workers, AUGMENTATION, SHAPE, SHAPE)
    )


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("field", ["indices", "warps", "colours", "degradations", "seeds"])
def test_workers_share_the_same_global_batches(workers: int, field: str) -> None:
    """What a step learns from does not depend on how many workers there are."""
    alone = draw(40, 6, seed=1, epoch=2)
    shares = [draw(40, 6, 1, 2, rank, workers) for rank in range(workers)]
    assert len(alone) == 6
    for step, batch in enumerate(alone):
        parts = [getattr(share[step], field) for share in shares]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert min(map(len, parts)) >= 1
        np.testing.assert_array_equal(np.concatenate(parts), getattr(batch, field))


def test_an_epoch_shows_no_example_twice_and_leaves_out_less_than_a_batch() -> None:
    seen = np.concatenate([batch.indices for batch in draw(40, 6)])
    assert len(seen) == len(set(seen.tolist())) == 36


def test_each_example_is_changed_in_its_own_way() -> None:
    batches = draw(40, 8)
    for drawn in (
        np.concatenate([batch.warps for batch in batches]),
        np.concatenate([batch.colours for batch in batches]).reshape(40, 12),
        np.concatenate([batch.seeds for batch in batches]),
    ):
        assert len(np.unique(drawn, axis=0)) == 40


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def drawn(seed: int, epoch: int) -> tuple[list[int], list[float]]:
        batches = draw(32, 8, seed, epoch)
        order = [i for batch in batches for i in batch.indices.tolist()]
        return order, [shift for batch in batches for shift in batch.warps[:, 2].tolist()]

    assert drawn(0, 1) == drawn(0, 1)
    for other in (drawn(0, 2), drawn(1, 1)):
        assert drawn(0, 1)[0] != other[0]
        assert drawn(0, 1)[1] != other[1]


@pytest.mark.parametrize(("count", "workers"), [(1, 4), (3, 4), (7, 2)])
def test_fewer_examples_than_a_batch_are_repeated(count: int, workers: int) -> None:
    """Every worker makes the same number of steps of the same size, so none waits for ever."""
    shares = [draw(count, 8, rank=rank, workers=workers) for rank in range(workers)]
    assert {len(share) for share in shares} == {steps_per_epoch(count, 8)} == {1}
    assert {len(share[0].indices) for share in shares} == {8 // workers}
    seen = np.concatenate([share[0].indices for share in shares])
    assert set(seen.tolist()) == set(range(count))


def test_a_window_lies_behind_the_margins_of_its_crop() -> None:
    """Rows and columns have margins of their own."""
    still = Augmentation(flip=False)
    [drawn] = draw_epoch(4, 4, 0, 1, 0, 1, still, (8, 16), (8, 16), (3, 5))
    assert drawn.warps[:, 5].tolist() == [3] * 4
    assert drawn.warps[:, 2].tolist() == [5] * 4

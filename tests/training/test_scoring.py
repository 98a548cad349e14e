"""Scoring, by a network that notes how many images it is given at once."""

from collections.abc import Iterable, Iterator

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from segray.training.config import TrainConfig
from segray.training.network import TrainableNetwork
from segray.training.scoring import block_length, score_share


class Blank:
    """A validation part of black images that are class 1 all over."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size

    def __len__(self) -> int:
        return self._count

    def read(
        self, batches: Iterable[npt.NDArray[np.int64]]
    ) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        for indices in batches:
            shape = (len(indices), self._size, self._size)
            yield np.zeros((*shape, 3), np.uint8), np.ones(shape, np.uint8)


class Noting(TrainableNetwork):
    """Notes the lengths of the blocks that it predicts."""

    def score(
        self, images: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.uint8], float]:
        self.lengths = [*getattr(self, "lengths", []), len(images)]
        return super().score(images, masks)


@pytest.mark.parametrize(("size", "length"), [(32, 16), (1024, 4)])
def test_large_images_are_predicted_few_at_once(size: int, length: int) -> None:
    """Sixteen of them would need more memory than the training itself; each is still counted."""
    keras.utils.set_random_seed(0)
    config = TrainConfig(image_size=size, classes=("background=0", "box=1"))
    network = Noting(tf.distribute.get_strategy(), config, None, np.ones(2, np.float32))
    confusion, _ = score_share(network, Blank(length + 1, size), 0, 1)
    assert network.lengths == [length, 1]
    assert confusion.sum(axis=1).tolist() == [0, (length + 1) * size**2]


def test_the_largest_images_are_predicted_one_by_one() -> None:
    assert [block_length(size) for size in (512, 513, 2048, 4096)] == [16, 15, 1, 1]

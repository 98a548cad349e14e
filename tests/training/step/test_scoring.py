"""Scoring, by a network that notes how many images it is given at once."""

from collections.abc import Iterable, Iterator

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from segray.training.config import TrainConfig
from segray.training.step.blocks import block_length
from segray.training.step.network import TrainableNetwork
from segray.training.step.scoring import score_share


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


def make_network(size: int) -> tuple[TrainableNetwork, list[int]]:
    """A network, and a list of how many images it predicts at once."""
    keras.utils.set_random_seed(0)
    config = TrainConfig(image_size=size, classes=("background=0", "box=1"))
    network = TrainableNetwork(tf.distribute.get_strategy(), config, None, np.ones(2, np.float32))
    lengths, score = [], network._score

    def note(images: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8]) -> object:
        lengths.append(len(images))
        return score(images, masks)

    network._score = note
    return network, lengths


@pytest.mark.parametrize(("size", "length"), [(32, 16), (1024, 4)])
def test_large_images_are_predicted_few_at_once(size: int, length: int) -> None:
    """Sixteen of them would need more memory than the training itself; each is still counted."""
    network, lengths = make_network(size)
    confusion, _ = score_share(network, Blank(length + 1, size), 0, 1)
    # The last block is filled up, for an image's logits not to hang on those beside it.
    assert lengths == [length, length]
    assert confusion.sum(axis=1).tolist() == [0, (length + 1) * size**2]


def test_the_largest_images_are_predicted_one_by_one() -> None:
    assert [block_length(size**2) for size in (512, 513, 2048, 4096)] == [16, 15, 1, 1]


def test_more_images_than_a_block_are_predicted_block_by_block() -> None:
    """As those of a preview, where they are so large that a block is of three."""
    network, lengths = make_network(1056)
    images = np.zeros((4, 1056, 1056, 3), np.uint8)
    predicted, loss = network.score(images, np.ones((4, 1056, 1056), np.uint8))
    assert lengths == [3, 3]
    assert predicted.shape == (4, 1056, 1056)
    _, of_one = network.score(images[:1], np.ones((1, 1056, 1056), np.uint8))
    assert loss == pytest.approx(4 * of_one, rel=1e-5)

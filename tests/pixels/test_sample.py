"""Sample pictures: always the same, never alike, and not to be had by a threshold."""

import numpy as np
import pytest

from segray.pixels.sample import ANIMAL, BACKGROUND, BORDER, draw_sample


def test_an_index_always_gives_the_same_picture_and_another_index_another() -> None:
    image, trimap = draw_sample(3)
    again, trimap_again = draw_sample(3)
    other, _ = draw_sample(4)
    assert np.array_equal(image, again)
    assert np.array_equal(trimap, trimap_again)
    assert not np.array_equal(image, other)


@pytest.mark.parametrize("index", range(12))
def test_the_trimap_has_an_animal_in_a_border_on_a_background(index: int) -> None:
    image, trimap = draw_sample(index)
    assert image.shape == (*trimap.shape, 3)
    assert image.dtype == trimap.dtype == np.uint8
    assert set(np.unique(trimap)) == {ANIMAL, BACKGROUND, BORDER}
    animal, background = trimap == ANIMAL, trimap == BACKGROUND
    touching = animal[1:] & background[:-1] | animal[:-1] & background[1:]
    assert not touching.any()


def test_pictures_come_in_several_sizes() -> None:
    assert len({draw_sample(index)[1].shape for index in range(20)}) > 3


def test_no_threshold_on_a_colour_finds_the_animals() -> None:
    samples = [draw_sample(index) for index in range(20)]
    animal = np.concatenate([trimap.ravel() == ANIMAL for _, trimap in samples])
    colours = np.concatenate([image.reshape(-1, 3) for image, _ in samples]).astype(int)
    warmth = colours[:, 0] - colours[:, 2]
    for feature in (*colours.T, warmth):
        for threshold in np.quantile(feature, np.linspace(0.05, 0.95, 19)):
            for found in (feature > threshold, feature <= threshold):
                assert (found & animal).sum() / (found | animal).sum() < 0.6

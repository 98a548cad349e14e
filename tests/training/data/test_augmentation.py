import numpy as np
import numpy.typing as npt
import pytest

from segray.training.data.augmentation import Augmentation

SIZE = 96
COUNT = 2000
EVERYTHING = Augmentation(zoom=(0.7, 1.1), stretch=0.1, rotation=10, colour=0.2)


def draw(augmentation: Augmentation, seed: int = 0) -> npt.NDArray[np.float32]:
    return augmentation.draw_warps(np.random.default_rng(seed), COUNT, (SIZE, SIZE), (SIZE, SIZE))


def read_at(warps: npt.NDArray[np.float32], x: float, y: float) -> npt.NDArray[np.float64]:
    """Where the pixel (x, y) of each augmented image comes from, float64 [N, 2]."""
    matrices = warps[:, :6].reshape(-1, 2, 3).astype(np.float64)
    return matrices @ np.array([x, y, 1.0])


def lit(colours: npt.NDArray[np.float32], *colour: float) -> npt.NDArray[np.float64]:
    """What a colour becomes in each augmented image, float64 [N, 3], not clipped."""
    return colours.astype(np.float64) @ np.array([*colour, 1.0])


def test_all_switched_off_changes_nothing() -> None:
    off = Augmentation(flip=False)
    assert not off.warps
    np.testing.assert_array_equal(draw(off), np.tile([1.0, 0, 0, 0, 1, 0, 0, 0], (COUNT, 1)))
    colours = off.draw_colours(np.random.default_rng(0), COUNT)
    np.testing.assert_array_equal(colours, np.tile(np.eye(3, 4), (COUNT, 1, 1)))


@pytest.mark.parametrize(
    "one", [{"flip": True}, {"zoom": (0.9, 1.0)}, {"stretch": 0.1}, {"rotation": 5.0}]
)
def test_each_switch_moves_pixels(one: dict) -> None:
    augmentation = Augmentation(**{"flip": False, **one})
    assert augmentation.warps
    assert len(np.unique(draw(augmentation), axis=0)) > 1


def test_half_of_the_examples_are_mirrored_exactly() -> None:
    """A mirrored pixel is read at the pixel across the middle, and not beside it."""
    warps = draw(Augmentation(flip=True))
    flipped = warps[:, 0] < 0
    assert 0.45 < flipped.mean() < 0.55
    np.testing.assert_array_equal(read_at(warps[flipped], 0, 7), [[SIZE - 1, 7]] * flipped.sum())
    np.testing.assert_array_equal(read_at(warps[~flipped], 5, 7), [[5, 7]] * (~flipped).sum())


@pytest.mark.parametrize("stretch", [0.0, 0.1])
def test_a_smaller_frame_lies_anywhere_inside_of_the_image(stretch: float) -> None:
    """From edge to edge, which are half a pixel away from the outermost pixels' centres."""
    warps = draw(Augmentation(zoom=(0.5, 0.9), stretch=stretch))
    corners = np.stack([read_at(warps, x, y) for x in (-0.5, 95.5) for y in (-0.5, 95.5)])
    assert corners.min() > -0.5 - 1e-3
    assert corners.max() < SIZE - 0.5 + 1e-3
    np.testing.assert_allclose(corners.min(axis=(0, 1)), -0.5, atol=1)
    np.testing.assert_allclose(corners.max(axis=(0, 1)), SIZE - 0.5, atol=1)


def test_a_larger_frame_has_the_image_in_its_middle() -> None:
    middle = (SIZE - 1) / 2
    warps = draw(Augmentation(zoom=(1.2, 1.5), rotation=30))
    np.testing.assert_allclose(read_at(warps, middle, middle), middle, atol=1e-4)


def test_zoom_stretch_and_rotation_fill_their_ranges_and_stay_in_them() -> None:
    warps = draw(EVERYTHING).astype(np.float64)
    across, down = np.hypot(warps[:, 0], warps[:, 3]), np.hypot(warps[:, 1], warps[:, 4])
    angles = np.rad2deg(np.arctan2(-warps[:, 1], warps[:, 4]))
    for drawn, least, most in (
        (np.sqrt(across * down), 0.7, 1.1),
        (across / down, 1 / 1.1, 1.1),
        (angles, -10, 10),
    ):
        margin = 0.01 * (most - least)
        assert least - 1e-5 < drawn.min() < least + margin
        assert most - margin < drawn.max() < most + 1e-5
    # A frame that is turned is not sheared.
    np.testing.assert_allclose(warps[:, 0] * warps[:, 1] + warps[:, 3] * warps[:, 4], 0, atol=1e-6)


def test_half_of_the_examples_are_blurred_and_half_get_noise() -> None:
    augmentation = Augmentation(blur=2, noise=20)
    blurs, noises = augmentation.draw_degradations(np.random.default_rng(0), COUNT).T
    for strengths, most in ((blurs, 2), (noises, 20)):
        assert 0.45 < (strengths > 0).mean() < 0.55
        assert strengths.min() == 0
        assert 0.95 * most < strengths.max() <= most
    assert 0.2 < ((blurs > 0) & (noises > 0)).mean() < 0.3  # independently of each other


def test_colours_change_by_no_more_than_they_may() -> None:
    colours = EVERYTHING.draw_colours(np.random.default_rng(0), COUNT)
    gains = lit(colours, 127.5, 127.5, 127.5) / 127.5  # contrast turns about the middle
    assert gains.min() > 0.8 * (1 - 0.2 / 3)
    assert gains.max() < 1.2 * (1 + 0.2 / 3)
    assert gains.std(axis=0).min() > 0.05
    ratios = gains.max(axis=1) / gains.min(axis=1)
    assert 1.05 < ratios.max() < (1 + 0.2 / 3) / (1 - 0.2 / 3)
    contrasts = (lit(colours, 200, 200, 200) - lit(colours, 50, 50, 50)) / 150 / gains
    np.testing.assert_allclose(contrasts, contrasts[:, :1] * [[1, 1, 1]], rtol=1e-4)
    assert 0.8 - 1e-4 < contrasts.min() < 0.81
    assert 1.19 < contrasts.max() < 1.2 + 1e-4


def test_saturation_moves_colours_to_and_from_their_grey() -> None:
    colours = EVERYTHING.draw_colours(np.random.default_rng(0), COUNT)
    greys = lit(colours, 120, 120, 120)
    gains = lit(colours, 121, 121, 121) - greys
    # Of Pillow's grey, by the same weights: (180, 97, 81) is 120.
    saturations = (lit(colours, 180, 97, 81) - greys) / gains / (np.array([180, 97, 81]) - 120)
    np.testing.assert_allclose(saturations, saturations[:, :1] * [[1, 1, 1]], rtol=0.01)
    assert 0.79 < saturations.min() < 0.81
    assert 1.19 < saturations.max() < 1.21


def test_draws_repeat_with_the_seed_and_go_on_with_the_generator() -> None:
    np.testing.assert_array_equal(draw(EVERYTHING, 3), draw(EVERYTHING, 3))
    assert (draw(EVERYTHING, 3) != draw(EVERYTHING, 4)).any()
    rng = np.random.default_rng(3)
    first, second = (EVERYTHING.draw_colours(rng, 8) for _ in range(2))
    np.testing.assert_array_equal(EVERYTHING.draw_colours(np.random.default_rng(3), 8), first)
    assert (first != second).any()

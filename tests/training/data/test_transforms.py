import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage

from segray.pixels.labels import IGNORED
from segray.training.data import transforms
from segray.training.data.augmentation import Augmentation
from tests.support import draw_picture

SIZE = 48
STRONG = Augmentation(zoom=(0.6, 1.6), stretch=0.2, rotation=30)
IDENTITY = [1.0, 0, 0, 0, 1, 0, 0, 0]
MIRRORED = [-1.0, 0, SIZE - 1, 0, 1, 0, 0, 0]

Pictures = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def images() -> Pictures:
    return np.stack([draw_picture(SIZE, SIZE, seed) for seed in range(4)])


@pytest.fixture(scope="module")
def masks(images: Pictures) -> Pictures:
    """Blobs of the classes 0, 3, 7, and of pixels to ignore."""
    return np.array([0, 3, 7, IGNORED], dtype=np.uint8)[images[..., 1] // 64]


def warp(
    images: Pictures, masks: Pictures, warps: object
) -> tuple[npt.NDArray[np.float32], Pictures]:
    warps = np.broadcast_to(np.array(warps, dtype=np.float32), (len(images), 8))
    moved, truth = transforms.warp(images, masks, warps, (SIZE, SIZE), -(-images.shape[1] // SIZE))
    assert (moved.dtype, truth.dtype) == ("float32", "uint8")
    return moved.numpy(), truth.numpy()


def recolour(images: npt.ArrayLike, colours: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return transforms.recolour(np.float32(images), np.float32(colours)).numpy()


def test_the_identity_moves_nothing(images: Pictures, masks: Pictures) -> None:
    for warps in (
        IDENTITY,
        Augmentation(flip=False).draw_warps(
            np.random.default_rng(0), 4, (SIZE, SIZE), (SIZE, SIZE)
        ),
    ):
        moved, truth = warp(images, masks, warps)
        np.testing.assert_array_equal(moved, images)
        np.testing.assert_array_equal(truth, masks)


def test_a_flip_mirrors_exactly_from_left_to_right(images: Pictures, masks: Pictures) -> None:
    drawn = Augmentation(flip=True).draw_warps(
        np.random.default_rng(0), 64, (SIZE, SIZE), (SIZE, SIZE)
    )
    flipped = drawn[drawn[:, 0] < 0][:4]
    for warps in (MIRRORED, flipped):
        moved, truth = warp(images, masks, warps)
        np.testing.assert_array_equal(moved, images[:, :, ::-1])
        np.testing.assert_array_equal(truth, masks[:, :, ::-1])


def test_each_example_has_its_own_warp(images: Pictures, masks: Pictures) -> None:
    moved, truth = warp(images, masks, [IDENTITY, MIRRORED, MIRRORED, IDENTITY])
    for i, turned in enumerate([False, True, True, False]):
        step = -1 if turned else 1
        np.testing.assert_array_equal(moved[i], images[i, :, ::step])
        np.testing.assert_array_equal(truth[i], masks[i, :, ::step])


@pytest.mark.parametrize(("right", "down"), [(11, 5), (-20, 0), (0, -33)])
def test_what_lies_outside_of_the_image_is_mirrored_into_the_frame(
    images: Pictures, masks: Pictures, right: int, down: int
) -> None:
    moved, truth = warp(images, masks, [1, 0, right, 0, 1, down, 0, 0])
    rows, columns = slice(SIZE + down, 2 * SIZE + down), slice(SIZE + right, 2 * SIZE + right)
    margins = ((0, 0), (SIZE, SIZE), (SIZE, SIZE))
    np.testing.assert_array_equal(
        moved, np.pad(images, (*margins, (0, 0)), "symmetric")[:, rows, columns]
    )
    np.testing.assert_array_equal(truth, np.pad(masks, margins, "symmetric")[:, rows, columns])


def test_a_half_of_the_side_is_enlarged_bilinearly(images: Pictures, masks: Pictures) -> None:
    middle = (SIZE - 1) / 2
    moved, truth = warp(images, masks, [0.5, 0, middle / 2, 0, 0.5, middle / 2, 0, 0])
    # Linear along the rows, then along the columns; the frame's pixels are half as far apart.
    pixels = np.arange(SIZE)
    places = middle + (pixels - middle) / 2

    def interpolate(line: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.interp(places, pixels, line)

    expected = np.apply_along_axis(interpolate, 2, images)
    expected = np.apply_along_axis(interpolate, 1, expected)
    np.testing.assert_allclose(moved, expected, atol=0.01)
    nearest = np.rint(places).astype(int)
    np.testing.assert_array_equal(truth, masks[:, nearest][:, :, nearest])


@pytest.mark.parametrize("times", [2, 3])
def test_a_larger_image_is_averaged_and_not_skipped_through(times: int) -> None:
    images = np.stack([draw_picture(times * SIZE, times * SIZE, seed) for seed in range(4)])
    warps = Augmentation(flip=False).draw_warps(
        np.random.default_rng(0), 4, (SIZE, SIZE), (times * SIZE, times * SIZE)
    )
    moved, _ = warp(images, images[..., 0], warps)
    blocks = images.reshape(4, SIZE, times, SIZE, times, 3)
    np.testing.assert_allclose(moved, blocks.mean(axis=(2, 4)), atol=0.01)


@pytest.mark.parametrize("source", [SIZE, SIZE * 3 // 2, 2 * SIZE])
@pytest.mark.parametrize("box", [1, IGNORED])
def test_image_and_mask_move_together(box: int, source: int) -> None:
    """A bright box stays what the mask says that it is, up to the pixels on its outline."""
    images = np.zeros((32, source, source, 3), dtype=np.uint8)
    masks = np.zeros((32, source, source), dtype=np.uint8)
    rng = np.random.default_rng(0)
    for image, mask in zip(images, masks, strict=True):
        top, left = rng.integers(0, source // 2, 2)
        height, width = rng.integers(source // 6, source // 2, 2)
        region = slice(top, top + height), slice(left, left + width)
        image[region], mask[region] = 255, box
    moved, truth = warp(images, masks, STRONG.draw_warps(rng, 32, (SIZE, SIZE), (source, source)))
    bright, dark = moved[..., 0] > 254.9, moved[..., 0] < 0.1
    assert (truth[bright] == box).all()
    assert (truth[dark] == 0).all()
    assert (bright | dark).mean() > 0.9
    assert bright.mean() > 0.05
    if source == SIZE:
        assert (truth != masks).mean() > 0.1  # they did move


def test_rectangles_are_averaged_and_mirrored_side_by_side() -> None:
    shape, source = (16, 32), (32, 64)
    images = np.stack([draw_picture(*source, seed) for seed in range(8)])
    warps = Augmentation(flip=True).draw_warps(np.random.default_rng(0), 8, shape, source)
    moved, truth = transforms.warp(images, images[..., 0], warps, shape, 2)
    assert truth.shape == (8, *shape)
    assert len(set(warps[:, 0])) == 2
    means = images.reshape(8, 16, 2, 32, 2, 3).mean(axis=(2, 4))
    for one, pixels, expected in zip(warps, moved.numpy(), means, strict=True):
        expected = expected[:, ::-1] if one[0] < 0 else expected
        np.testing.assert_allclose(pixels, expected, atol=0.01)


def test_rectangles_are_turned_around_their_middle() -> None:
    shape, source = (32, 96), (48, 144)
    augmentation = Augmentation(flip=False, rotation=45)
    warps = augmentation.draw_warps(np.random.default_rng(0), 20, shape, source)
    y, x = ((side - 1) / 2 for side in shape)
    np.testing.assert_allclose(warps[:, :2] @ [x, y] + warps[:, 2], 71.5, atol=1e-3)
    np.testing.assert_allclose(warps[:, 3:5] @ [x, y] + warps[:, 5], 23.5, atol=1e-3)
    # Turned, not sheared: both axes keep their lengths, and the right angle between them.
    axes = np.stack([warps[:, [0, 3]], warps[:, [1, 4]]], axis=1)
    np.testing.assert_allclose(axes @ axes.transpose(0, 2, 1), [np.eye(2) * 2.25] * 20, atol=1e-4)


def test_masks_hold_no_class_that_was_not_there(images: Pictures, masks: Pictures) -> None:
    """Between two class ids there are others, and a mask is not to be blended."""
    assert set(np.unique(masks)) == {0, 3, 7, IGNORED}
    for seed in range(10):
        warps = STRONG.draw_warps(np.random.default_rng(seed), 4, (SIZE, SIZE), (SIZE, SIZE))
        moved, truth = warp(images, masks, warps)
        for i in range(4):
            assert set(np.unique(truth[i])) <= set(np.unique(masks[i]))
        assert moved.min() > -0.01
        assert moved.max() < 255.01


def test_colours_stay_without_a_change(images: Pictures) -> None:
    off = Augmentation(flip=False).draw_colours(np.random.default_rng(0), 4)
    np.testing.assert_array_equal(recolour(images, off), images)


def test_each_image_gets_its_own_mix_of_its_channels() -> None:
    pixels = np.broadcast_to(np.float32([10, 20, 40]), (3, 2, 2, 3))
    keep, swap = np.eye(3, 4), np.eye(3, 4)[[2, 0, 1]]
    halve = np.eye(3, 4) / 2
    halve[1, 3] = 100
    changed = recolour(pixels, [keep, swap, halve])
    np.testing.assert_allclose(changed[0, 1, 1], [10, 20, 40])
    np.testing.assert_allclose(changed[1, 1, 1], [40, 10, 20])
    np.testing.assert_allclose(changed[2, 1, 1], [5, 110, 20])


def test_a_black_and_white_image_gets_one_tint_and_no_other_colours() -> None:
    """Saturation finds nothing to change in it: bright and dark pixels have the same tint."""
    colours = Augmentation(colour=0.3).draw_colours(np.random.default_rng(0), 64)
    ramp = np.broadcast_to(np.float32([[[[80] * 3, [127.5] * 3, [140] * 3]]]), (64, 1, 3, 3))
    dark, middle, light = np.moveaxis(recolour(ramp, colours)[:, 0], 1, 0)
    tints = middle / middle[:, :1]
    np.testing.assert_allclose(dark / dark[:, :1], tints, rtol=1e-4)
    np.testing.assert_allclose(light / light[:, :1], tints, rtol=1e-4)
    assert (dark < middle).all()
    assert (middle < light).all()


def test_colours_stay_in_their_range(images: Pictures) -> None:
    brighter, darker = 3 * np.eye(3, 4), np.eye(3, 4)
    darker[:, 3] = -100
    changed = recolour(images, [brighter, darker, brighter, darker])
    expected = images.astype(np.float64)
    expected[::2] = np.minimum(3 * expected[::2], 255)
    expected[1::2] = np.maximum(expected[1::2] - 100, 0)
    np.testing.assert_allclose(changed, expected, atol=0.01)
    assert changed.min() == 0
    assert changed.max() == 255


def degrade(
    images: npt.ArrayLike, degradations: npt.ArrayLike, seeds: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    most = float(np.max(degradations, axis=0)[0])
    degraded = transforms.degrade(
        np.float32(images), np.float32(degradations), np.int32(seeds), most
    )
    return degraded.numpy()


def test_images_are_blurred_as_by_scipy_each_by_its_own_strength(images: Pictures) -> None:
    blurs = [0.0, 0.5, 1.5, 3.0]
    blurred = degrade(images, [(blur, 0) for blur in blurs], np.zeros((4, 2)))
    np.testing.assert_allclose(blurred[0], images[0], atol=1e-3)
    for got, image, blur in zip(blurred[1:], images[1:], blurs[1:], strict=True):
        sigma = (blur, blur, 0)
        expected = scipy.ndimage.gaussian_filter(np.float64(image), sigma, mode="mirror", radius=6)
        np.testing.assert_allclose(got, expected, atol=0.01)


def test_noise_has_its_deviation_in_each_channel_and_is_of_its_seed_alone() -> None:
    grey = np.full((4, 64, 96, 3), 128)
    strengths, seeds = [(0, 0), (0, 5), (0, 20), (0, 20)], [(1, 1), (1, 2), (1, 3), (1, 4)]
    noise = degrade(grey, strengths, seeds) - 128
    assert not noise[0].any()
    for picture, (_, deviation) in zip(noise[1:], strengths[1:], strict=True):
        channels = picture.reshape(-1, 3)
        np.testing.assert_allclose(channels.std(axis=0), deviation, rtol=0.05)
        np.testing.assert_allclose(channels.mean(axis=0), 0, atol=deviation / 10)
        np.testing.assert_allclose(np.corrcoef(channels.T), np.eye(3), atol=0.05)
    assert abs(np.corrcoef(noise[2].ravel(), noise[3].ravel())[0, 1]) < 0.05
    alone = degrade(grey[:1], strengths[3:], seeds[3:]) - 128
    np.testing.assert_array_equal(alone[0], noise[3])


def test_noise_keeps_black_and_white_in_their_range() -> None:
    ends = np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 255)])
    degraded = degrade(ends, [(1, 50)] * 2, [(0, 0), (0, 1)])
    assert degraded.min() == 0
    assert degraded.max() == 255


def test_a_larger_source_is_scaled_down_with_its_centres_in_place() -> None:
    """Half of the size: each new pixel is the mean of four, its mask one of theirs."""
    source = 2 * SIZE
    images = np.random.default_rng(0).integers(0, 256, (2, source, source, 3), dtype=np.uint8)
    masks = np.random.default_rng(1).integers(0, 3, (2, source, source), dtype=np.uint8)
    warps = Augmentation(flip=False).draw_warps(
        np.random.default_rng(0), 2, (SIZE, SIZE), (source, source)
    )
    moved, truth = warp(images, masks, warps)
    fours = images.reshape(2, SIZE, 2, SIZE, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(moved, fours, atol=1e-2)
    corners = [masks[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]
    assert np.stack([corner == truth for corner in corners]).any(axis=0).all()

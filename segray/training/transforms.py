"""Transforms: the augmentation of a batch inside the compiled graph.

One warp moves an image and its mask alike, one matrix changes the image's colours.
"""

import tensorflow as tf

from segray.pixels.labels import IGNORED


def warp(
    images: tf.Tensor, masks: tf.Tensor, warps: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply `Augmentation.draw_warps`: bilinear for images, nearest for masks.

    Images that are larger than their frame are sampled several times for each of its pixels, M / S
    times a side rounded up, and the mean is taken. Sampled once they would be sharper than what the
    network sees later, which was scaled down with an anti-aliasing filter.

    Args:
        images: uint8 [B, M, M, 3].
        masks: uint8 [B, M, M] of class ids.
        warps: float32 [B, 8].
        size: S, in pixels.

    Returns:
        Images float32 [B, S, S, 3] in [0, 255], and masks uint8 [B, S, S].
    """
    samples = -(-images.shape[1] // size)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=_divide_pixels(warps, samples),
        output_shape=[size * samples, size * samples],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    if samples > 1:
        moved = tf.nn.avg_pool2d(moved, samples, samples, "VALID")
    truth = tf.raw_ops.ImageProjectiveTransformV3(
        images=masks[..., None],
        transforms=warps,
        output_shape=[size, size],
        interpolation="NEAREST",
        fill_mode="REFLECT",
        fill_value=float(IGNORED),
    )
    return moved, truth[..., 0]


def _divide_pixels(warps: tf.Tensor, samples: int) -> tf.Tensor:
    """The same warps for a frame with so many times as many pixels a side."""
    a0, a1, a2, a3, a4, a5, a6, a7 = tf.unstack(tf.cast(warps, tf.float32), axis=1)
    # The finer pixel x lies where (x + 0.5) / samples - 0.5 lies in the frame.
    middle = 0.5 / samples - 0.5
    a2, a5 = a2 + (a0 + a1) * middle, a5 + (a3 + a4) * middle
    rows = [a0 / samples, a1 / samples, a2, a3 / samples, a4 / samples, a5, a6, a7]
    return tf.stack(rows, axis=1)


def recolour(images: tf.Tensor, colours: tf.Tensor) -> tf.Tensor:
    """Apply `Augmentation.draw_colours`.

    Args:
        images: float32 [B, S, S, 3] in [0, 255].
        colours: float32 [B, 3, 4].

    Returns:
        float32 [B, S, S, 3] in [0, 255].
    """
    mixed = tf.einsum("bhwc,bkc->bhwk", images, colours[:, :, :3]) + colours[:, None, None, :, 3]
    return tf.clip_by_value(mixed, 0.0, 255.0)

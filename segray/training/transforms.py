"""Transforms: the augmentation of a batch inside the compiled graph.

One warp moves an image and its mask alike, one matrix changes the image's colours.
"""

import tensorflow as tf

from segray.pixels.labels import IGNORED


def warp(
    images: tf.Tensor, masks: tf.Tensor, warps: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply `Augmentation.draw_warps`: bilinear for images, nearest for masks.

    Args:
        images: uint8 [B, M, M, 3].
        masks: uint8 [B, M, M] of class ids.
        warps: float32 [B, 8].
        size: S, in pixels.

    Returns:
        Images float32 [B, S, S, 3] in [0, 255], and masks uint8 [B, S, S].
    """
    shared = {"transforms": warps, "output_shape": [size, size], "fill_mode": "REFLECT"}
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32), interpolation="BILINEAR", fill_value=0.0, **shared
    )
    truth = tf.raw_ops.ImageProjectiveTransformV3(
        images=masks[..., None], interpolation="NEAREST", fill_value=float(IGNORED), **shared
    )
    return moved, truth[..., 0]


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

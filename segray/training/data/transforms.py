"""Transforms: the augmentation of a batch inside the compiled graph.

One warp moves an image and its mask alike; one matrix changes the colours of the image, which then
is blurred and gets noise.
"""

import math

import tensorflow as tf

from segray.pixels.labels import IGNORED


def warp(
    images: tf.Tensor, masks: tf.Tensor, warps: tf.Tensor, shape: tuple[int, int], samples: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply the warps of `Augmentation.draw_warps`: bilinear for images, nearest for masks.

    If the images are scaled down, each pixel of the result is the mean of some samples per side. A
    single sample would be sharper than the images that the network sees in prediction, which are
    downscaled with an anti-aliasing filter.

    Args:
        images: uint8 [B, h, w, 3] RGB.
        masks: uint8 [B, h, w] of class ids.
        warps: float32 [B, 8].
        shape: H and W, the height and width of the result, in pixels.
        samples: the number of samples per side of a pixel.

    Returns:
        Images float32 [B, H, W, 3] in [0, 255], and masks uint8 [B, H, W].
    """
    height, width = shape
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=_divide_pixels(warps, samples),
        output_shape=[height * samples, width * samples],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    if samples > 1:
        moved = tf.nn.avg_pool2d(moved, samples, samples, "VALID")
    truth = tf.raw_ops.ImageProjectiveTransformV3(
        images=masks[..., None],
        transforms=warps,
        output_shape=[height, width],
        interpolation="NEAREST",
        fill_mode="REFLECT",
        fill_value=float(IGNORED),
    )
    return moved, truth[..., 0]


def _divide_pixels(warps: tf.Tensor, samples: int) -> tf.Tensor:
    """Return the same warps for a frame with `samples` times as many pixels per side."""
    a0, a1, a2, a3, a4, a5, a6, a7 = tf.unstack(tf.cast(warps, tf.float32), axis=1)
    # Pixel x of the finer frame lies at (x + 0.5) / samples - 0.5 of the coarser one.
    middle = 0.5 / samples - 0.5
    a2, a5 = a2 + (a0 + a1) * middle, a5 + (a3 + a4) * middle
    rows = [a0 / samples, a1 / samples, a2, a3 / samples, a4 / samples, a5, a6, a7]
    return tf.stack(rows, axis=1)


def recolour(images: tf.Tensor, colours: tf.Tensor) -> tf.Tensor:
    """Apply the colour transforms of `Augmentation.draw_colours`.

    Args:
        images: float32 [B, H, W, 3] in [0, 255].
        colours: float32 [B, 3, 4].

    Returns:
        float32 [B, H, W, 3] in [0, 255].
    """
    mixed = tf.einsum("bhwc,bkc->bhwk", images, colours[:, :, :3]) + colours[:, None, None, :, 3]
    return tf.clip_by_value(mixed, 0.0, 255.0)


def degrade(
    images: tf.Tensor, degradations: tf.Tensor, seeds: tf.Tensor, most_blur: float
) -> tf.Tensor:
    """Blur images and add noise, as `Augmentation.draw_degradations` says.

    Args:
        images: float32 [B, H, W, 3] in [0, 255].
        degradations: float32 [B, 2].
        seeds: int32 [B, 2], the seeds of the noise.
        most_blur: the greatest standard deviation of a blur, in pixels.

    Returns:
        float32 [B, H, W, 3] in [0, 255].
    """
    if most_blur:
        images = _blur(images, degradations[:, 0], math.ceil(2 * most_blur))

    def add_noise(inputs: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, deviation, seed = inputs
        return tf.cond(
            deviation > 0,
            lambda: image + deviation * tf.random.stateless_normal(tf.shape(image), seed),
            lambda: image,
        )

    # An example's noise depends on its own seed, and not on the worker that draws it.
    images = tf.map_fn(
        add_noise, (images, degradations[:, 1], seeds), fn_output_signature=tf.float32
    )
    return tf.clip_by_value(images, 0.0, 255.0)


def _blur(images: tf.Tensor, deviations: tf.Tensor, reach: int) -> tf.Tensor:
    """Convolve each image with its own Gaussian, cut off at so many pixels.

    The images become the channels of a single one, whose channels are convolved separately.
    """
    height, width = images.shape[1:3]
    offsets = tf.range(-reach, reach + 1, dtype=tf.float32)
    kernels = tf.exp(-0.5 * tf.square(offsets[:, None] / tf.maximum(deviations, 1e-3)))
    kernels = tf.repeat(kernels / tf.reduce_sum(kernels, axis=0), 3, axis=1)
    joined = tf.reshape(tf.transpose(images, (1, 2, 0, 3)), (1, height, width, -1))
    joined = tf.pad(joined, ((0, 0), (reach, reach), (reach, reach), (0, 0)), "REFLECT")
    for kernel in (kernels[:, None, :, None], kernels[None, :, :, None]):
        joined = tf.nn.depthwise_conv2d(joined, kernel, (1, 1, 1, 1), "VALID")
    return tf.transpose(tf.reshape(joined, (height, width, -1, 3)), (2, 0, 1, 3))

"""Augmentation: each time an example is seen, it is framed and lit a little differently.

The parameters are drawn by numpy from the run's seed, for the whole global batch, so that what a
step learns from depends neither on the number of workers nor on when a run was interrupted.
`segray.training.transforms` applies them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# ITU-R BT.601: what red, green and blue give to the grey of a pixel.
_LUMA = (0.299, 0.587, 0.114)
_MID_GREY = 127.5


@dataclass(frozen=True)
class Augmentation:
    """How far examples are changed.

    Attributes:
        flip: whether half of them are mirrored left to right.
        zoom: the least and the greatest share of the image's side that fills the frame, such as
            (0.7, 1.1); what lies outside of the image is mirrored into the frame.
        stretch: the greatest change of the aspect ratio, 0.1 for a tenth.
        rotation: the greatest angle, in degrees.
        colour: the greatest relative change of brightness, contrast and saturation; the colour
            channels change by a third of it against each other.
    """

    flip: bool = True
    zoom: tuple[float, float] = (1.0, 1.0)
    stretch: float = 0.0
    rotation: float = 0.0
    colour: float = 0.0

    @property
    def warps(self) -> bool:
        """Whether any pixel moves."""
        return self.flip or self.zoom != (1.0, 1.0) or self.stretch > 0 or self.rotation > 0

    def draw_warps(
        self, rng: np.random.Generator, count: int, size: int, source_size: int
    ) -> npt.NDArray[np.float32]:
        """Where each pixel of the augmented image comes from.

        Args:
            rng: source of randomness.
            count: N, how many examples.
            size: S, the side of the augmented images, in pixels.
            source_size: M, the side of the images that they are cut out of, in pixels.

        Returns:
            float32 [N, 8], as `tf.raw_ops.ImageProjectiveTransformV3` takes them: the pixel
            (x, y) is read at (a0 x + a1 y + a2, a3 x + a4 y + a5).
        """
        low, high = np.log(self.zoom)
        zoom = np.exp(rng.uniform(low, high, count))
        stretch = np.exp(rng.uniform(-0.5, 0.5, count) * np.log1p(self.stretch))
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation, count))
        mirror = np.where(self.flip & (rng.random(count) < 0.5), -1.0, 1.0)
        scale_x, scale_y = mirror * zoom * stretch, zoom / stretch
        # The frame stays inside of the image where it is smaller, but for its rotation.
        room = size * np.maximum(1 - np.abs([scale_x, scale_y]), 0) / 2
        shift_x, shift_y = rng.uniform(-1, 1, (2, count)) * room
        cos, sin = np.cos(angle), np.sin(angle)
        warps = np.zeros((count, 8))
        warps[:, 0], warps[:, 1] = cos * scale_x, -sin * scale_y
        warps[:, 3], warps[:, 4] = sin * scale_x, cos * scale_y
        centre = (size - 1) / 2
        warps[:, 2] = centre + shift_x - centre * (warps[:, 0] + warps[:, 1])
        warps[:, 5] = centre + shift_y - centre * (warps[:, 3] + warps[:, 4])
        # From the pixels of an image of S to those of one of M, whose centres lie elsewhere.
        warps *= source_size / size
        warps[:, (2, 5)] += (source_size / size - 1) / 2
        return warps.astype(np.float32)

    def draw_colours(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        """How the colours of each example change.

        Args:
            rng: source of randomness.
            count: N, how many examples.

        Returns:
            float32 [N, 3, 4]: from (red, green, blue, 1) to the new red, green and blue.
        """
        contrast, saturation, brightness = 1 + rng.uniform(-self.colour, self.colour, (3, count, 1))
        gains = brightness * (1 + rng.uniform(-self.colour, self.colour, (count, 3)) / 3)
        mix = saturation[:, :, None] * np.eye(3) + (1 - saturation[:, :, None]) * np.array(_LUMA)
        matrix = (gains * contrast)[:, :, None] * mix
        offset = gains * (1 - contrast) * _MID_GREY
        return np.concatenate([matrix, offset[:, :, None]], axis=2).astype(np.float32)

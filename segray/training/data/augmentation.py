"""Random augmentation: an example is moved, recoloured and degraded anew each time it is used.

The parameters are drawn with numpy from the run's seed, for a whole global batch at a time. The
data of a step therefore depend neither on the number of workers nor on where a run was interrupted.
`segray.training.data.transforms` applies them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# ITU-R BT.601: the weights of red, green and blue in a pixel's luma.
_LUMA = (0.299, 0.587, 0.114)
_MID_GREY = 127.5


@dataclass(frozen=True)
class Augmentation:
    """The ranges of the random augmentation.

    Attributes:
        flip: True if half of the examples are mirrored left to right.
        zoom: the least and the greatest share of the image's side that fills the frame, such as
            (0.7, 1.1). Above 1, the frame is filled with a mirror image of the borders.
        stretch: the maximum change of the aspect ratio; 0.1 is a tenth.
        rotation: the maximum angle, in degrees.
        colour: the maximum relative change of brightness, contrast and saturation. The colour
            channels change relative to each other by up to a third of it.
        blur: the greatest standard deviation of a Gaussian blur, in pixels of the augmented image.
        noise: the greatest standard deviation of Gaussian noise, in grey levels of 0 to 255.
    """

    flip: bool = True
    zoom: tuple[float, float] = (1.0, 1.0)
    stretch: float = 0.0
    rotation: float = 0.0
    colour: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    @property
    def warps(self) -> bool:
        """True if the augmentation moves pixels at all."""
        return self.flip or self.zoom != (1.0, 1.0) or self.stretch > 0 or self.rotation > 0

    def draw_warps(
        self,
        rng: np.random.Generator,
        count: int,
        shape: tuple[int, int],
        source_shape: tuple[int, int],
    ) -> npt.NDArray[np.float32]:
        """Draw random affine transforms that map pixels of the augmented images to source pixels.

        Args:
            rng: source of randomness.
            count: N, the number of examples.
            shape: the height and width of the augmented images, in pixels.
            source_shape: those of the source images.

        Returns:
            float32 [N, 8], as `tf.raw_ops.ImageProjectiveTransformV3` takes them: the pixel (x, y)
            is read at (a0 x + a1 y + a2, a3 x + a4 y + a5).
        """
        low, high = np.log(self.zoom)
        zoom = np.exp(rng.uniform(low, high, count))
        stretch = np.exp(rng.uniform(-0.5, 0.5, count) * np.log1p(self.stretch))
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation, count))
        mirror = np.where(self.flip & (rng.random(count) < 0.5), -1.0, 1.0)
        scale_x, scale_y = mirror * zoom * stretch, zoom / stretch
        # A frame smaller than the image is shifted within it only (before its rotation).
        size = np.array(shape[::-1])  # x before y, as in all that follows
        room = size[:, None] * np.maximum(1 - np.abs([scale_x, scale_y]), 0) / 2
        shift_x, shift_y = rng.uniform(-1, 1, (2, count)) * room
        cos, sin = np.cos(angle), np.sin(angle)
        warps = np.zeros((count, 8))
        warps[:, 0], warps[:, 1] = cos * scale_x, -sin * scale_y
        warps[:, 3], warps[:, 4] = sin * scale_x, cos * scale_y
        x, y = (size - 1) / 2  # the centre
        warps[:, 2] = x + shift_x - (x * warps[:, 0] + y * warps[:, 1])
        warps[:, 5] = y + shift_y - (x * warps[:, 3] + y * warps[:, 4])
        # Convert from coordinates of an image of the augmented size to those of a source image.
        # Pixel centres lie half a pixel in, hence the offset.
        ratio = np.array(source_shape[::-1]) / size
        warps[:, :6] *= np.repeat(ratio, 3)
        warps[:, (2, 5)] += (ratio - 1) / 2
        return warps.astype(np.float32)

    def draw_colours(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        """Draw random colour transforms, one affine matrix per example.

        Args:
            rng: source of randomness.
            count: N, the number of examples.

        Returns:
            float32 [N, 3, 4], which maps (red, green, blue, 1) to the new red, green and blue.
        """
        contrast, saturation, brightness = 1 + rng.uniform(-self.colour, self.colour, (3, count, 1))
        gains = brightness * (1 + rng.uniform(-self.colour, self.colour, (count, 3)) / 3)
        mix = saturation[:, :, None] * np.eye(3) + (1 - saturation[:, :, None]) * np.array(_LUMA)
        matrix = (gains * contrast)[:, :, None] * mix
        offset = gains * (1 - contrast) * _MID_GREY
        return np.concatenate([matrix, offset[:, :, None]], axis=2).astype(np.float32)

    def draw_degradations(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        """Draw the strengths of blur and noise: 0 for half of the examples of each.

        Args:
            rng: source of randomness.
            count: N, the number of examples.

        Returns:
            float32 [N, 2], the standard deviations of the blur in pixels and of the noise in grey
            levels.
        """
        strengths = np.maximum(rng.uniform(-1, 1, (count, 2)), 0)
        return (strengths * (self.blur, self.noise)).astype(np.float32)

"""Blocks: how many images a network predicts at once, in scores and calibration.

The last bit of an image's logits hangs on how many images are predicted with it. So it is always
the same number: what is counted is the same whatever the number of workers.
"""

import numpy as np
import numpy.typing as npt

_MOST_IMAGES = 16
# What is kept of a block grows with its pixels: sixteen images at a side of 512, four at 1024.
_MOST_PIXELS = 16 * 512**2


def block_length(image_size: int) -> int:
    """How many images of a side in pixels are predicted at once, whatever the --batch-size."""
    return min(_MOST_IMAGES, max(1, _MOST_PIXELS // image_size**2))


def fill_block(array: npt.NDArray[np.uint8], block: int, value: int) -> npt.NDArray[np.uint8]:
    """A block of the full length, uint8 [block, ...], with a value in what is missing."""
    missing = [(0, block - len(array)), *[(0, 0)] * (array.ndim - 1)]
    return np.pad(array, missing, constant_values=value)

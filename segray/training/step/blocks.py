"""Blocks: the fixed number of images per prediction in scoring and calibration.

Logits can differ in the last bit with the number of images in a batch. A fixed number keeps the
metrics independent of the number of workers and of --batch-size.
"""

import numpy as np
import numpy.typing as npt

_MOST_IMAGES = 16
# The memory of a block grows with its pixels: 16 images with a side of 512, 4 with one of 1024.
_MOST_PIXELS = 16 * 512**2


def block_length(pixels: int) -> int:
    """Return the number of images per prediction, for images of this number of pixels."""
    return min(_MOST_IMAGES, max(1, _MOST_PIXELS // pixels))


def fill_block(array: npt.NDArray[np.uint8], block: int, value: int) -> npt.NDArray[np.uint8]:
    """Pad an array to a full block, uint8 [block, ...], with a constant value."""
    missing = [(0, block - len(array)), *[(0, 0)] * (array.ndim - 1)]
    return np.pad(array, missing, constant_values=value)

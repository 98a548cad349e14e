"""Boundary IoU: a measure of how well a prediction follows the outlines of the classes."""

import math

import numpy as np
import numpy.typing as npt

from segray.pixels.labels import IGNORED

#: The width of the band along a contour, as a share of the image's diagonal; the paper uses this
#: value for COCO.
DILATION_RATIO = 0.02

# Pixels counted at a time, which limits the memory for images of any size.
_CHUNK = 1 << 18


def band_width(height: int, width: int) -> int:
    """Return the width of a contour's band in pixels: 2 % of the diagonal of the image.

    It is rounded, and at least 1, as in the reference implementation
    (https://github.com/bowenc0221/boundary-iou-api, ``boundary_utils.py``).
    """
    return max(1, round(DILATION_RATIO * math.hypot(height, width)))


def boundary_counts(
    truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count the pixels for Boundary IoU, after Cheng et al. 2021, https://arxiv.org/abs/2103.16562.

    Let G be the pixels of a class in the ground truth, P those in the prediction, and G_d, P_d the
    pixels within `band_width` of their contours. Boundary IoU is the IoU of (G_d and G) with (P_d
    and P), the bands inside the contours. A band consists of the pixels that d erosions with a 3x3
    square remove. The outside of the image belongs to no class, so its border is a contour as well.

    Pixels that are `IGNORED` in the ground truth are not counted. In both masks they are treated
    like the outside of the image, so that predictions there do not move a contour either.

    Args:
        truth: the ground truth, uint8 [H, W] of class ids or `IGNORED`.
        prediction: uint8 [H, W] of class ids.
        classes: C, the number of classes.

    Returns:
        The numbers of pixels in the intersection and in the union of the two bands of each class,
        int64 [C] each. Their quotient is the Boundary IoU of the class. For a data set, both are
        summed over the images first.
    """
    distance = band_width(*truth.shape)
    prediction = np.where(truth == IGNORED, np.uint8(IGNORED), prediction)
    true_band = _band(truth, distance)
    predicted_band = _band(prediction, distance)
    shared = true_band & predicted_band & (truth == prediction)
    intersection, true_pixels, predicted_pixels = (
        _count_ids(ids, classes)
        for ids in (truth[shared], truth[true_band], prediction[predicted_band])
    )
    return intersection, true_pixels + predicted_pixels - intersection


def _count_ids(ids: npt.NDArray[np.uint8], classes: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(IGNORED + 1, dtype=np.int64)
    for start in range(0, len(ids), _CHUNK):
        # np.bincount converts its argument to eight bytes per element.
        counts += np.bincount(ids[start : start + _CHUNK], minlength=IGNORED + 1)
    return counts[:classes]


def _band(class_ids: npt.NDArray[np.uint8], distance: int) -> npt.NDArray[np.bool]:
    """Return the pixels that have a pixel of another class within a distance in rows and columns.

    These are the pixels that the erosions of all classes remove, computed in one pass: a square is
    of one class if and only if each square of 2x2 pixels in it is.
    """
    padded = np.pad(class_ids, 1, constant_values=IGNORED)
    corner = padded[:-1, :-1]
    mixed = padded[:-1, 1:] != corner
    mixed |= padded[1:, :-1] != corner
    mixed |= padded[1:, 1:] != corner
    # A square of (2 d + 1) x (2 d + 1) pixels contains 2 d squares of 2x2 pixels per direction.
    mixed = _any_of(mixed, 2 * distance)
    return _any_of(mixed.T, 2 * distance).T


def _any_of(values: npt.NDArray[np.bool], length: int) -> npt.NDArray[np.bool]:
    """Return the logical or of each `length` consecutive rows around each place between two rows.

    The windows are built by doubling, in as many passes as `length` has bits.
    """
    reach = length // 2 - 1
    found = np.pad(values, ((reach, reach), (0, 0)))
    span = 1
    while span < length:
        step = min(span, length - span)
        found = found[:-step] | found[step:]
        span += step
    return found

"""Boundary IoU: how well a prediction follows the outlines of the classes."""

import math

import numpy as np
import numpy.typing as npt

from segray.pixels.labels import IGNORED

#: The width of the band along a contour, as a share of the image's diagonal; the paper's for COCO.
DILATION_RATIO = 0.02

# Pixels that are counted at a time, which bounds the memory whatever the size of the image.
_CHUNK = 1 << 18


def band_width(height: int, width: int) -> int:
    """How many pixels a contour's band is wide in an image of this size: 2 % of its diagonal.

    Rounded, and at least 1, as in the reference implementation
    (https://github.com/bowenc0221/boundary-iou-api, ``boundary_utils.py``).
    """
    return max(1, round(DILATION_RATIO * math.hypot(height, width)))


def boundary_counts(
    truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count what Boundary IoU divides, after Cheng et al. 2021, https://arxiv.org/abs/2103.16562.

    With G the pixels of a class in the truth, P those in the prediction, and G_d, P_d the pixels
    within `band_width` of their contours, it is the IoU of (G_d and G) with (P_d and P): the IoU of
    the bands inside the contours. A band is what d erosions with a 3x3 square take away, the
    surroundings of the image counting as none of the class, so that its border is a contour too.

    Pixels that are `IGNORED` in the truth count nowhere. They are taken for surroundings of the
    image in both masks, so that what is predicted there moves no contour either.

    Args:
        truth: uint8 [H, W] of class ids or `IGNORED`.
        prediction: uint8 [H, W] of class ids.
        classes: how many classes there are, C.

    Returns:
        The pixels that both bands of a class share, and those in at least one of them, each
        int64 [C]. Their quotient is its Boundary IoU; over a data set both are summed first.
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
        # numpy widens what it counts to eight bytes each.
        counts += np.bincount(ids[start : start + _CHUNK], minlength=IGNORED + 1)
    return counts[:classes]


def _band(class_ids: npt.NDArray[np.uint8], distance: int) -> npt.NDArray[np.bool]:
    """Which pixels have one of another class within a distance, in rows and in columns.

    That is what the erosions of each class together take away, in one pass for all classes: a
    square is of one class if and only if each square of 2x2 pixels in it is.
    """
    padded = np.pad(class_ids, 1, constant_values=IGNORED)
    corner = padded[:-1, :-1]
    mixed = padded[:-1, 1:] != corner
    mixed |= padded[1:, :-1] != corner
    mixed |= padded[1:, 1:] != corner
    # The squares of 2x2 pixels in one of (2 d + 1) x (2 d + 1) pixels: 2 d in each direction.
    mixed = _any_of(mixed, 2 * distance)
    return _any_of(mixed.T, 2 * distance).T


def _any_of(values: npt.NDArray[np.bool], length: int) -> npt.NDArray[np.bool]:
    """Whether one of `length` consecutive rows is true, around each place between two rows.

    The windows are put together from ones of half the length: as many passes as `length` has bits.
    """
    reach = length // 2 - 1
    found = np.pad(values, ((reach, reach), (0, 0)))
    span = 1
    while span < length:
        step = min(span, length - span)
        found = found[:-step] | found[step:]
        span += step
    return found

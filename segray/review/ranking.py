"""The ranking: the order in which images are looked at for a review."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.results.segmentation import Segmentation, read_current
from segray.storage.ids import Ids, as_ids

# Images that are looked at for each one that is wanted, at most: a bucket may hold one video.
_LOOKS = 20


@dataclass(frozen=True)
class Rated:
    """The images of a segmentation with what the model expects of their masks.

    Attributes:
        ids: int64 [N], the ids of the images.
        files: intp [N], the results files that their rows are in, by index.
        expected: float32 [N], the expected IoU of each.
        of_classes: float32 [N, C], that of each class; NaN where the class is not there.
    """

    ids: Ids
    files: npt.NDArray[np.intp]
    expected: npt.NDArray[np.float32]
    of_classes: npt.NDArray[np.float32]


def rate_images(segmentation: Segmentation) -> Rated:
    """Read the expected IoU of all current images of a segmentation.

    Raises:
        InputError: a file cannot be read, or is of a version of segray without it.
    """
    names = [f"expected_iou_{name}" for name in segmentation.classes]
    table, files = read_current(segmentation, ["expected_iou", *names])
    of_classes = [table[name].to_numpy() for name in names]
    return Rated(
        as_ids(table["id"]),
        files,
        table["expected_iou"].to_numpy().astype(np.float32),
        np.stack(of_classes, axis=1).astype(np.float32),
    )


def rank_images(rated: Rated, count: int) -> npt.NDArray[np.intp]:
    """Return the images in the order in which they are worth labelling, each once: intp [N].

    Images that are worst by the mean over their classes alternate with images that are worst in a
    class, each class in turn, the worst class first. Images that are equally bad are in the order
    of their ids, which is random. There are several times as many as are wanted, because some of
    them turn out to be like others, or cannot be read.

    Args:
        rated: the images.
        count: the number of images that are wanted.
    """
    classes = rated.of_classes.shape[1]
    quota = int(np.ceil(_LOOKS * count / 2 / classes))
    overall = np.argsort(rated.expected, kind="stable")
    columns = []
    for expected in rated.of_classes.T:
        there = np.flatnonzero(~np.isnan(expected))
        worst = there[np.argsort(expected[there], kind="stable")][:quota]
        if len(worst):
            columns.append((float(expected[worst[0]]), worst))
    columns.sort(key=lambda column: column[0])
    turns = np.full((quota, len(columns)), -1, dtype=np.intp)
    for number, (_, worst) in enumerate(columns):
        turns[: len(worst), number] = worst
    of_classes = turns[turns >= 0]
    alternating = np.column_stack([np.resize(overall, len(of_classes)), of_classes])
    order = np.concatenate([alternating.ravel(), overall])
    _, first = np.unique(order, return_index=True)
    return order[np.sort(first)][: _LOOKS * count]

"""The ranking: the order in which images are looked at for a review."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.pixels.expected import ExpectedOverlap
from segray.pixels.labels import Labels
from segray.storage.ids import Ids, as_ids
from segray.storage.lowest import find_lowest

# Images that are looked at for each one that is wanted, at most: a bucket may hold one video.
_LOOKS = 20
# What is read of each class.
_KINDS = ("pixels", "confidence", "expected_pixels", "expected_iou")
# The column of a candidate with its expected IoU; those of the classes follow.
_OVERALL = 0


@dataclass(frozen=True)
class Ranked:
    """Images in the order in which they are worth labelling, each once.

    Attributes:
        ids: int64 [N], the ids of the images.
        files: intp [N], the results files that their rows are in, by index.
        expected: float64 [N], the expected IoU of each.
    """

    ids: Ids
    files: npt.NDArray[np.intp]
    expected: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


class Ranking:
    """Ranks images while rows are added, and holds few of them at any time.

    Args:
        labels: the classes of the model.
        usual_shares: see `segray.model.bundle.Bundle`.
        count: the number of images that are wanted.
    """

    def __init__(self, labels: Labels, usual_shares: Sequence[float], count: int) -> None:
        self._labels, self._usual_shares = labels, usual_shares
        self._most = _LOOKS * count
        self._quota = int(np.ceil(self._most / 2 / len(labels)))  # images of a class
        self._ids: Ids = np.empty(0, dtype=np.int64)
        self._files = np.empty(0, dtype=np.intp)
        # The lower, the worse: the expected IoU of an image, and less what each class misses in it.
        self._values = np.empty((0, 1 + len(labels)))

    @property
    def columns(self) -> list[str]:
        """The names of the columns of results that are needed."""
        names = self._labels.names
        return ["id", "expected_iou", *(f"{kind}_{name}" for kind in _KINDS for name in names)]

    def add(self, file: int, table: pa.Table) -> None:
        """Add rows with `columns` of a results file, of which no other rows are added.

        Args:
            file: the index of the file.
            table: its rows, of images that have not been added.
        """
        expected = table["expected_iou"].to_numpy()
        values = np.column_stack([expected, -self._missed(table)])
        self._ids = np.concatenate([self._ids, as_ids(table["id"])])
        self._files = np.concatenate([self._files, np.full(len(table), file)])
        self._values = np.concatenate([self._values, values])
        kept = [
            find_lowest(self._values[:, :1], self._most),
            find_lowest(self._values[:, 1:], self._quota),
        ]
        rows = np.unique(np.concatenate(kept))
        self._ids, self._files = self._ids[rows], self._files[rows]
        self._values = self._values[rows]

    def finish(self) -> Ranked:
        """Return the ranking of the images that were added.

        Images that are worst by the mean over their classes alternate with images in which most of
        a class is expected to be wrong, each class in turn, the worst class first. There are
        several times as many as are wanted, because some of them turn out to be like others, or
        cannot be read.
        """
        by_id = np.argsort(self._ids)
        ids, files, values = self._ids[by_id], self._files[by_id], self._values[by_id]
        overall = np.argsort(values[:, _OVERALL], kind="stable")
        columns = []
        for missed in values[:, _OVERALL + 1 :].T:
            worst = np.argsort(missed, kind="stable")[: self._quota]
            worst = worst[missed[worst] < 0]
            if len(worst):
                columns.append((float(missed[worst[0]]), worst))
        columns.sort(key=lambda column: column[0])
        turns = np.full((self._quota, len(columns)), -1, dtype=np.intp)
        for number, (_, worst) in enumerate(columns):
            turns[: len(worst), number] = worst
        of_classes = turns[turns >= 0]
        alternating = np.column_stack([np.resize(overall, len(of_classes)), of_classes])
        order = np.concatenate([alternating.ravel(), overall])
        _, first = np.unique(order, return_index=True)
        order = order[np.sort(first)][: self._most]
        return Ranked(ids[order], files[order], values[order, _OVERALL])

    def _missed(self, table: pa.Table) -> npt.NDArray[np.float64]:
        """Return what is expected to be wrong of each class, float64 [N, C] in [0, 1].

        It is what the class takes from the mean over the image: one that is hardly there takes
        little, even if all of it is wrong.
        """
        names = self._labels.names
        pixels, confidences, expected, ious = (
            np.column_stack([table[f"{kind}_{name}"].to_numpy() for name in names])
            for kind in _KINDS
        )
        overlap = ExpectedOverlap.of(pixels, pixels * np.nan_to_num(confidences), expected)
        return overlap.weights(self._usual_shares) * (1 - np.nan_to_num(ious))

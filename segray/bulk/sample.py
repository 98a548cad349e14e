"""The sample of a segmentation: a few segmented images for a person to look at."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.storage.ids import Ids, are_in
from segray.storage.lowest import find_lowest

#: Images in a sample.
SHOWN = 60

# Of these, the images with the lowest expected IoU, and those with the most and with the least of a
# class; the others are random.
_UNSURE, _EXTREMES = 12, 24
# Images that are most unlike the training images, apart from the sample.
_UNLIKE = 12


@dataclass(frozen=True, order=True)
class Place:
    """The place of a row.

    Attributes:
        uri: URI of the Parquet file.
        row: number of the row in the file.
    """

    uri: str
    row: int


class Sample:
    """Chooses images while rows are added, and holds few of them at any time.

    A sample has random images, those with the lowest expected IoU, and those with the most and with
    the least of each class. The same rows give the same sample.

    Args:
        classes: number of classes, C.
        among: the ids to choose from, ascending; empty for any id.
    """

    def __init__(self, classes: int, among: Ids) -> None:
        self._among = among
        self._each = max(1, _EXTREMES // classes)  # images at either end of a class
        self._uris: list[str] = []
        # Columns of a candidate: its id, its expected IoU, how like the training images it is,
        # and the share of each class; and index in _uris and row.
        self._values = np.empty((0, 3 + classes))
        self._places = np.empty((0, 2), dtype=np.int64)

    def add(
        self,
        uri: str,
        rows: npt.NDArray[np.intp],
        ids: Ids,
        shares: npt.NDArray[np.float64],
        expected_iou: npt.NDArray[np.float64],
        unlike: npt.NDArray[np.float64],
    ) -> None:
        """Add rows of a file.

        Args:
            uri: of the file.
            rows: [N], their numbers in it.
            ids: int64 [N], of the images.
            shares: float64 [N, C], the share of each class in its image, 0 to 1.
            expected_iou: float64 [N], that of each image, 0 to 1.
            unlike: float64 [N], how unlike the training images each image is.
        """
        # An id is a digest: the smallest ones are a random sample.
        values = np.column_stack([ids.astype(np.float64), expected_iou, -unlike, shares])
        places = np.column_stack([np.full(len(rows), len(self._uris)), rows])
        able = are_in(ids, self._among) if len(self._among) else np.ones(len(ids), dtype=np.bool_)
        self._uris.append(uri)
        self._values = np.concatenate([self._values, values[able]])
        self._places = np.concatenate([self._places, places[able]])
        kept = np.unique(
            np.concatenate(
                [
                    find_lowest(self._values[:, :1], SHOWN),
                    find_lowest(self._values[:, 1:2], _UNSURE),
                    find_lowest(self._values[:, 2:3], _UNLIKE),
                    find_lowest(self._values[:, 3:], self._each),
                    find_lowest(-self._values[:, 3:], self._each),
                ]
            )
        )
        self._values, self._places = self._values[kept], self._places[kept]

    def choose(self, pixels: npt.NDArray[np.int64]) -> list[Place]:
        """Choose the sample.

        Args:
            pixels: int64 [C], of each class in all images; extremes of large classes come first.

        Returns:
            The rows in the order in which they were added.
        """
        order = np.argsort(self._values, axis=0, kind="stable")
        spread, unsure = order[:, 0].tolist(), order[:, 1].tolist()
        ranked = order[:, 3:][:, np.argsort(-pixels, kind="stable")]
        # In turn: each class's image with most of it, each one's with least, the second ones, …
        most, least = ranked[::-1][: self._each], ranked[: self._each]
        extremes = np.stack([most, least], axis=1).ravel().tolist()
        chosen = dict.fromkeys(unsure[:_UNSURE])
        for candidates, size in ((extremes, len(chosen) + _EXTREMES), (spread, SHOWN)):
            for candidate in candidates:
                if len(chosen) < size:
                    chosen.setdefault(candidate)
        return self._find_places(list(chosen))

    def choose_unlike(self) -> list[Place]:
        """Return a few images that are most unlike the training images, as rows in order."""
        order = np.argsort(self._values[:, 2], kind="stable")
        return self._find_places(order[:_UNLIKE].tolist())

    def _find_places(self, candidates: list[int]) -> list[Place]:
        places = sorted(self._places[candidates].tolist())
        return [Place(self._uris[index], row) for index, row in places]

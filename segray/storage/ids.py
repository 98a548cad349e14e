"""Ids: sorted arrays of 64-bit integers, and fast look-up in them."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: int64 [N], the ids of images or digests of keys.
Ids = npt.NDArray[np.int64]


def as_ids(column: pa.ChunkedArray) -> Ids:
    """Convert a column of integers without nulls."""
    return column.cast(pa.int64()).to_numpy()


def find_ids(ascending: Ids, values: Ids) -> npt.NDArray[np.intp]:
    """Return the index of each value in an array; any index if it is not there.

    Args:
        ascending: int64 [N], sorted, N at least 1.
        values: int64 [M].

    Returns:
        intp [M], each in 0 to N - 1.
    """
    return np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)


class FirstRows:
    """Finds the first row of each image, of rows that arrive one file after the other.

    Args:
        listed: the ids of the images, int64, ascending; rows of others do not count.
    """

    def __init__(self, listed: Ids) -> None:
        self._listed = listed
        self._seen = np.zeros(len(listed), dtype=np.bool_)

    def find(self, ids: Ids) -> npt.NDArray[np.intp]:
        """Return the rows, ascending, whose images are listed and have had no earlier row.

        Args:
            ids: int64 [N], the ids of the next rows.
        """
        rows = np.flatnonzero(are_in(ids, self._listed))
        images, firsts = np.unique(np.searchsorted(self._listed, ids[rows]), return_index=True)
        new = ~self._seen[images]
        self._seen[images[new]] = True
        return rows[np.sort(firsts[new])]


def are_in(values: Ids, ascending: Ids) -> npt.NDArray[np.bool]:
    """Return bool [M], True for the values, int64 [M], that are in a sorted array, int64 [N].

    The result is that of np.isin, which would sort the array on each call.
    """
    if not len(ascending):
        return np.zeros(len(values), bool)
    return ascending[find_ids(ascending, values)] == values

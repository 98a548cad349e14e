"""Ids: arrays of 64-bit numbers that are looked up in one another."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: int64 [N], of images or of keys.
Ids = npt.NDArray[np.int64]


def as_ids(column: pa.ChunkedArray) -> Ids:
    """A column of whole numbers without nulls."""
    return column.cast(pa.int64()).to_numpy()


def find_ids(ascending: Ids, values: Ids) -> npt.NDArray[np.intp]:
    """The place of each value among others if it is there, else of any of them.

    Args:
        ascending: int64 [N], N at least 1.
        values: int64 [M].

    Returns:
        [M], each in 0 to N - 1.
    """
    return np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)


def are_in(values: Ids, ascending: Ids) -> npt.NDArray[np.bool]:
    """Which of the values, int64 [M], are among others, int64 [N].

    As np.isin, which sorts the others anew at each call.
    """
    if not len(ascending):
        return np.zeros(len(values), bool)
    return ascending[find_ids(ascending, values)] == values

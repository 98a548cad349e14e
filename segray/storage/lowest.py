"""The rows with the lowest values, of which few are kept while many arrive."""

import numpy as np
import numpy.typing as npt


def find_lowest(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    """Return the rows with the `count` smallest values of each column, float64 [N, K].

    Returns:
        intp: the rows in no order; one of several columns is there as often.
    """
    if len(values) <= count:
        return np.arange(len(values))
    return np.argpartition(values, count, axis=0)[:count].ravel()

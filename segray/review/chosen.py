"""An image that was chosen for a review, with the mask that the model gave it."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Characters that are not the same in every name of a file, and the length of a name's beginning.
_UNSAFE, _STEM = re.compile(r"[^A-Za-z0-9._-]"), 80


@dataclass(frozen=True)
class Chosen:
    """An image that was chosen.

    Attributes:
        id: the id of the image.
        uri: its URI.
        mask: uint8 [H, W] of class ids, of the image's own size, upright.
        expected_iou: how good the model expects the mask to be, 0 to 1.
    """

    id: int
    uri: str
    mask: npt.NDArray[np.uint8]
    expected_iou: float

    @property
    def name(self) -> str:
        """A name that no other image has."""
        return f"{self.id & (1 << 64) - 1:016x}"

    @property
    def file_stem(self) -> str:
        """A name for its files that no other image has, and that begins like its own."""
        stem = self.uri.rpartition("/")[2].rpartition(".")[0]
        return f"{_UNSAFE.sub('_', stem)[:_STEM]}-{self.name}"


def run_lengths(values: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the lengths of runs of equal values, in turn False and True: int64 [N].

    The first is of False, and 0 if the values begin with True.

    Args:
        values: bool [N], N at least 1.
    """
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    ends = np.concatenate([[0] if values[0] else [], changes, [len(values)]]).astype(np.int64)
    return np.diff(ends, prepend=0)

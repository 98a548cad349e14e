"""Pairing: the images that two segmentations have in common, and where their rows are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.errors import InputError
from segray.results.segmentation import Segmentation, read_current_ids
from segray.storage.ids import Ids, are_in, as_ids, find_ids
from segray.storage.parallel import map_ahead
from segray.storage.tables import read_table

# Results files that are read concurrently.
_REQUESTS = 16


@dataclass(frozen=True)
class Pairing:
    """The images that two segmentations have in common.

    Attributes:
        ids: int64 [N], the ids of these images.
        files: intp [N, 2], the results files that their rows are in, by index.
        alone: the images that only the first, and only the second, has a row of.
    """

    ids: Ids
    files: npt.NDArray[np.intp]
    alone: tuple[int, int]

    def pieces(self) -> Iterator[tuple[int, int, Ids]]:
        """Yield the images of which the rows are in the same two files: these, and the ids."""
        order = np.lexsort(self.files.T[::-1])
        files, ids = self.files[order], self.ids[order]
        starts = np.flatnonzero(np.any(files[1:] != files[:-1], axis=1)) + 1
        for of_files, of_ids in zip(np.split(files, starts), np.split(ids, starts), strict=True):
            yield int(of_files[0, 0]), int(of_files[0, 1]), of_ids


def pair_images(before: Segmentation, after: Segmentation) -> Pairing:
    """Find the images that two segmentations have in common.

    An image that was overwritten between the two is another image.

    Raises:
        InputError: there is none, or a file cannot be read.
    """
    (ids, files), (other_ids, other_files) = map(_locate, (before, after))
    shared = are_in(ids, other_ids)
    if not shared.any():
        raise InputError(
            f"{before.uri} and {after.uri} have no image in common: give --results two "
            "segmentations of the same, unchanged files"
        )
    common = ids[shared]
    others = other_files[find_ids(other_ids, common)]
    pairs = np.stack([files[shared], others], axis=1)
    return Pairing(common, pairs, (len(ids) - len(common), len(other_ids) - len(common)))


def _locate(segmentation: Segmentation) -> tuple[Ids, npt.NDArray[np.intp]]:
    """Return the ids of all current images with a row, ascending, and the file of each."""
    current = read_current_ids(segmentation)
    found = list(
        map_ahead(lambda uri: as_ids(read_table(uri, ["id"])["id"]), segmentation.files, _REQUESTS)
    )
    ids = np.concatenate(found)
    files = np.repeat(np.arange(len(found)), [len(part) for part in found])
    # A task that ran twice may have left two rows for an image.
    distinct, first = np.unique(ids, return_index=True)
    listed = are_in(distinct, current)
    return distinct[listed], files[first][listed]

"""Pairing: the images that two segmentations have in common, and where their rows are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.errors import InputError
from segray.results.segmentation import Segmentation, read_current
from segray.storage.ids import Ids, are_in, as_ids, find_ids


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
    ids, files = _find_rows(before)
    other_ids, other_files = _find_rows(after)
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


def _find_rows(segmentation: Segmentation) -> tuple[Ids, npt.NDArray[np.intp]]:
    """The ids of the current images, ascending, and the results files of their rows, by index."""
    found = [(as_ids(table["id"]), file) for file, table in read_current(segmentation, ["id"])]
    ids = np.concatenate([ids for ids, _ in found])
    files = np.repeat([file for _, file in found], [len(ids) for ids, _ in found])
    order = np.argsort(ids)
    return ids[order], files[order]

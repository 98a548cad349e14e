"""Claims of images by rows: of all the rows for an image, the first one counts."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.storage.files import remove
from segray.storage.ids import FirstRows, Ids, are_in
from segray.storage.tables import read_table, write_table


class Claims:
    """Claims each listed image for the first row that has it, and removes the other rows.

    Args:
        listed: the ids of the images, int64, ascending.
        prune: True to remove the rows of images that are not listed, too.

    Attributes:
        claimed: rows that have claimed an image.
        doubled: rows of images that other rows had claimed.
        stale: rows of images that are not listed.
    """

    def __init__(self, listed: Ids, prune: bool) -> None:
        self._listed, self._prune = listed, prune
        self._first = FirstRows(listed)
        self.claimed = self.doubled = self.stale = 0

    def claim(self, uri: str, table: pa.Table) -> tuple[npt.NDArray[np.intp], pa.Table, Ids]:
        """Claim images for the rows of a file, and rewrite it if rows of it have to go.

        Args:
            uri: URI of the file.
            table: some columns of all its rows, the ids among them.

        Returns:
            The numbers, in the file as it is now, of the rows that have claimed an image; and these
            rows of the table; and the ids of all rows that the file has now.
        """
        ids = table["id"].to_numpy()
        is_listed = are_in(ids, self._listed)
        rows = self._first.find(ids)
        kept = np.zeros(len(ids), dtype=np.bool_) if self._prune else ~is_listed
        kept[rows] = True
        if not kept.all():
            _keep_rows(uri, kept)
        listed = int(np.count_nonzero(is_listed))
        self.claimed += len(rows)
        self.doubled += listed - len(rows)
        self.stale += len(ids) - listed
        return np.cumsum(kept)[rows] - 1, table.take(rows), ids[kept]


def _keep_rows(uri: str, kept: npt.NDArray[np.bool_]) -> None:
    if kept.any():
        write_table(uri, read_table(uri).filter(pa.array(kept)))
    else:
        remove(uri)

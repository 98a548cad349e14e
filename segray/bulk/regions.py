"""The regions of an output: each belongs to the row of its image, and is counted by its size.

A file of regions has the name of the file of results with the rows of their images. The name tells
the regions of a row from those that a killed process wrote before it was done once more.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.storage.files import remove
from segray.storage.ids import Ids
from segray.storage.tables import read_table, table_uris, write_table
from segray.storage.uri import join_uri

#: Bins of the sizes of regions: bin k has those of 2**k to 2**(k + 1) - 1 pixels.
SIZES = 30

_COLUMNS = ["id", "class", "area"]


class RegionSizes:
    """Sums and histograms for each of C classes, over the regions of any number of images.

    Attributes:
        regions: int64 [C], regions of the class.
        images: int64 [C], images with at least one.
        pixels: int64 [C], pixels of all these regions.
        areas: int64 [C, SIZES], the regions by their area.
    """

    def __init__(self, classes: int) -> None:
        self.regions, self.images, self.pixels = np.zeros((3, classes), dtype=np.int64)
        self.areas = np.zeros((classes, SIZES), dtype=np.int64)

    def add(self, class_ids: npt.NDArray[np.int64], areas: npt.NDArray[np.int64]) -> None:
        """Add regions, the classes and areas of which are int64 [N]."""
        classes = len(self.regions)
        self.regions += np.bincount(class_ids, minlength=classes)
        np.add.at(self.pixels, class_ids, areas)
        np.add.at(self.areas, (class_ids, np.log2(areas).astype(np.intp)), 1)


def read_regions(output: str, results: str) -> pa.Table:
    """Read the classes and areas of the regions of a file of results.

    Args:
        output: absolute URI of the output.
        results: URI of the file of results.

    Raises:
        InputError: the file of regions is damaged or missing.
    """
    uri = _uri_beside(output, results)
    try:
        return read_table(uri, _COLUMNS)
    except InputError as error:
        raise InputError(
            f"{error}: delete {results}, and run again to segment its images once more"
        ) from error


class RegionFiles:
    """Counts the regions of an output, and removes those that belong to no row of results.

    Args:
        output: absolute URI of the output.
        labels: the classes.

    Attributes:
        sizes: the regions of listed images, counted.
    """

    def __init__(self, output: str, labels: Labels) -> None:
        self._output, self._names = output, labels.names
        self._kept: set[str] = set()
        self.sizes = RegionSizes(len(labels))

    def add(self, results: str, regions: pa.Table, kept: Ids, counted: pa.Table) -> None:
        """Count the regions of a file of results, and rewrite theirs if some have lost their row.

        Args:
            results: URI of the file of results.
            regions: what `read_regions` has read.
            kept: the ids of the rows that the file has now.
            counted: of these, the rows that count: their ids and numbers of regions.

        Raises:
            InputError: there are other regions than the rows say, or a file cannot be written.
        """
        uri = _uri_beside(self._output, results)
        has_row = pc.is_in(regions["id"], pa.array(kept))
        if not len(kept):
            remove(uri)
        elif not pc.all(has_row, min_count=0).as_py():
            write_table(uri, read_table(uri).filter(has_row))
        self._kept.add(uri)
        own = regions.filter(pc.is_in(regions["id"], counted["id"].combine_chunks()))
        numbers = np.column_stack([counted[f"regions_{name}"].to_numpy() for name in self._names])
        if own.num_rows != numbers.sum():
            raise InputError(
                f"{uri} has {own.num_rows} regions of rows that have {numbers.sum()}: delete "
                f"{results}, and run again to segment its images once more"
            )
        self.sizes.images += (numbers > 0).sum(axis=0)
        class_ids = pc.index_in(own["class"], pa.array(self._names))
        self.sizes.add(class_ids.to_numpy().astype(np.int64), own["area"].to_numpy())

    def remove_others(self) -> None:
        """Remove the files of processes that were killed before they wrote the results, too."""
        for uri in table_uris(join_uri(self._output, "regions")):
            if uri not in self._kept:
                remove(uri)


def _uri_beside(output: str, results: str) -> str:
    return join_uri(output, "regions", results.rpartition("/")[2])

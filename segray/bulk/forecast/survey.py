"""The survey of a bucket: all of its images, counted, and a sample of those without a row."""

import heapq
import posixpath
import threading
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from segray.bulk.manifest import Found
from segray.bulk.search import Search, without_row
from segray.progress import ProgressLine
from segray.storage.ids import Ids
from segray.storage.listing import Entry
from segray.storage.parallel import map_ahead

#: Images in a sample.
SAMPLE = 256

_SEARCHES = 8  # parts that are listed at once


@dataclass
class Survey:
    """The images of a search that have no row yet.

    Attributes:
        found: counts of the search.
        parts: number of the images in each part of the search.
        bytes: size of their files, as far as it is known.
        unsized: images whose size is not known.
        suffixes: number of the images by the suffix of their names, in lower case.
        sample: a random sample of them; the same images give the same sample.
    """

    found: Found = field(default_factory=Found)
    parts: list[int] = field(default_factory=list)
    bytes: int = 0
    unsized: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)
    sample: list[Entry] = field(default_factory=list)

    def add(self, entries: list[Entry]) -> None:
        """Add images."""
        self.bytes += sum(entry.size or 0 for entry in entries)
        self.unsized += sum(entry.size is None for entry in entries)
        self.suffixes.update(posixpath.splitext(entry.uri)[1].lower() for entry in entries)
        self._choose(entries)

    def join(self, other: "Survey") -> None:
        """Add the survey of another part."""
        for name, count in vars(other.found).items():
            setattr(self.found, name, getattr(self.found, name) + count)
        self.parts.append(other.found.missing)
        self.bytes += other.bytes
        self.unsized += other.unsized
        self.suffixes += other.suffixes
        self._choose(other.sample)

    def _choose(self, entries: list[Entry]) -> None:
        # An id is a digest: the smallest ones are a random sample.
        self.sample = heapq.nsmallest(SAMPLE, [*self.sample, *entries], key=lambda e: e.id)


def take_survey(search: Search, done: Ids) -> Survey:
    """List all images of a search, and write nothing.

    Args:
        search: the search of a run.
        done: the ids that have a row, int64, ascending.

    Raises:
        InputError: the store cannot be asked, or an inventory cannot be read.
    """
    progress, lock = ProgressLine("listing", "images", None), threading.Lock()

    def survey(part: int) -> Survey:
        survey = Survey()
        for entries in search.images(part, survey.found):
            ids = np.array([entry.id for entry in entries], dtype=np.int64)
            missing = without_row(entries, ids, done)
            survey.found.missing += len(missing)
            survey.add(missing)
            with lock:
                progress.add(len(entries))
        return survey

    whole = Survey()
    for part in map_ahead(survey, range(len(search.parts)), _SEARCHES):
        whole.join(part)
    return whole

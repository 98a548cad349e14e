"""The search for images: those of a folder or manifest that count and have no row yet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from segray.bulk.manifest import Found, ManifestWriter
from segray.storage.ids import Ids, are_in
from segray.storage.inventory import Part, read_part
from segray.storage.listing import Entry, Page, Shard, list_pages, relative_key
from segray.storage.s3 import split_uri


@dataclass(frozen=True)
class Filter:
    """Selects the files that count as images.

    Attributes:
        suffixes: suffixes of names, in lower case, with their dots; empty for any.
        include: patterns of which a key must match one, if there are any; ``*`` matches slashes.
        exclude: patterns of which it must match none.
    """

    suffixes: tuple[str, ...]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def choose(
        self, entries: list[Entry], found: Found, key_of: Callable[[str], str]
    ) -> list[Entry]:
        """Select entries, and count the others.

        Args:
            entries: to choose from.
            found: receives the counts.
            key_of: returns the key of a URI, which the patterns are matched against.
        """
        chosen = []
        for entry in entries:
            if self.suffixes and not entry.uri.lower().endswith(self.suffixes):
                found.other += 1
            elif self._patterns(key_of(entry.uri)):
                chosen.append(entry)
            else:
                found.excluded += 1
        return chosen

    def _patterns(self, key: str) -> bool:
        included = not self.include or any(fnmatchcase(key, p) for p in self.include)
        return included and not any(fnmatchcase(key, pattern) for pattern in self.exclude)


def without_row(entries: list[Entry], ids: Ids, done: Ids) -> list[Entry]:
    """Select the entries, whose ids are given, that are not done; `done` is ascending."""
    new = ~are_in(ids, done)
    return [entry for entry, wanted in zip(entries, new.tolist(), strict=True) if wanted]


@dataclass(frozen=True)
class Search:
    """A search, in parts that can be listed at the same time.

    Attributes:
        parts: shards of a listing; or of an inventory, each a file or several.
        root: the URI that is listed; empty for an inventory.
        filter: selects the files that count.
        output: the absolute URI that receives the manifest.
        run: name of this run, in the names of the manifest's files.
        limit: largest number of images of each part; None for all.
        folder: URI that the paths of an inventory are relative to.
    """

    parts: tuple[Shard | Part | tuple[Part, ...], ...]
    root: str
    filter: Filter
    output: str
    run: str
    limit: int | None = None
    folder: str = ""

    def images(self, part: int, found: Found) -> Iterator[list[Entry]]:
        """The images of a part, some thousands at a time; what is passed over is counted.

        Raises:
            InputError: the store cannot be asked, or an inventory cannot be read.
        """
        left = self.limit
        for page in self._pages(self.parts[part]):
            found.hidden += page.hidden
            found.placeholders += page.placeholders
            found.unreadable += page.unreadable
            found.unseen += page.unseen
            chosen = self.filter.choose(page.entries, found, self._key)
            if left is not None:
                chosen = chosen[:left]
                left -= len(chosen)
            found.images += len(chosen)
            yield chosen
            if left == 0:
                return

    def list_and_record(
        self, part: int, done: Ids, report: Callable[[Found], None]
    ) -> Iterator[list[Entry]]:
        """List the images of a part, write the manifest, and yield those that have no row yet.

        The manifest is whole only when the last image has been taken.

        Args:
            part: its number.
            done: the ids that have a row, ascending.
            report: is called with what was found so far, from time to time and at the end.

        Raises:
            InputError: as `images`, or the manifest cannot be written.
        """
        found = Found()
        manifest = ManifestWriter(self.output, self.run, part)
        for entries in self.images(part, found):
            ids = np.array([entry.id for entry in entries], dtype=np.int64)
            manifest.add(ids, entries)
            missing = without_row(entries, ids, done)
            found.missing += len(missing)
            report(found)
            if missing:
                yield missing
        manifest.finish(found)
        report(found)

    def _key(self, uri: str) -> str:
        """The key that patterns are matched against, the same for listed and for named objects."""
        if self.root:
            return relative_key(self.root, uri)
        if uri.startswith("s3://"):
            return split_uri(uri)[1]
        return relative_key(self.folder, uri)

    @classmethod
    def _pages(cls, part: Shard | Part | tuple[Part, ...]) -> Iterator[Page]:
        if isinstance(part, Shard):
            yield from list_pages(part)
        elif isinstance(part, Part):
            yield from (Page(entries) for entries in read_part(part))
        else:
            for file in part:
                yield from cls._pages(file)

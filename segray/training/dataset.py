"""The data set of a run: written down when the run starts, and compared when it goes on."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from segray.errors import InputError
from segray.pixels.orientation import Says
from segray.storage.files import write_bytes
from segray.storage.labelled import Reading
from segray.storage.manifest import DATASET, DATASET_COLUMNS, DATASET_SPLITS, read_dataset
from segray.storage.pairs import Pair
from segray.storage.skipped import Skipped
from segray.storage.uri import join_uri
from segray.training.examples import Decoded
from segray.training.prepare import read_marker


@dataclass(frozen=True)
class DataSet:
    """What a run learns from and what it is scored on.

    Attributes:
        train: the pairs to learn from, decoded.
        validation: the pairs to score on, decoded.
    """

    train: Decoded
    validation: Decoded

    def with_reading(self, reading: Reading) -> "DataSet":
        """The same, where it would be decoded alike by another reading."""
        train, validation = (
            replace(part, examples=replace(part.examples, reading=reading))
            for part in (self.train, self.validation)
        )
        return DataSet(train, validation)

    @property
    def fingerprint(self) -> str:
        """Of the names and the content of all files, and of their parts."""
        return f"{self.train.fingerprint}-{self.validation.fingerprint}"

    @property
    def says(self) -> list[Says]:
        """What each pair says of how the masks of the set were drawn."""
        return self.train.says + self.validation.says

    @property
    def turned(self) -> int:
        """How many masks were turned with their images."""
        return self.train.turned + self.validation.turned

    @property
    def reading(self) -> Reading:
        """How the files are read."""
        return self.train.examples.reading

    @property
    def skipped(self) -> list[Skipped]:
        """The pairs that could not be decoded."""
        return self.train.skipped + self.validation.skipped

    def write(self, output: str) -> None:
        """Write ``pairs.csv``: the pairs in use, as --pairs takes them, with a digest of each.

        Raises:
            InputError: it cannot be written.
        """
        buffer = io.StringIO(newline="")
        table = csv.writer(buffer)
        table.writerow(DATASET_COLUMNS)
        table.writerows(self._rows())
        write_bytes(join_uri(output, DATASET), buffer.getvalue().encode())

    def check(self, output: str, found: Sequence[Pair]) -> None:
        """Make sure that the run in a folder was started on this data.

        Args:
            output: the URI of the folder.
            found: the pairs of that run that are there, those that could not be decoded among
                them.

        Raises:
            InputError: it was other data; the message says what is different.
        """
        if read_marker(output)["data_fingerprint"] == self.fingerprint:
            return
        if before := read_dataset(output):
            reasons = {item.image: item.reason for item in self.skipped}
            # Data may have been moved: a file is named where it is now, or else where it was.
            names = {row[3]: row[0] for row in before}
            names |= {pair.key: reasons.get(pair.image, pair.image) for pair in found}
            what = _describe_changes(_digests(before), _digests(self._rows()), names)
        else:
            what = f"{DATASET}, which says on what, is gone or damaged"
        raise InputError(
            f"{output} holds a run on other data ({what}): put the data back as it was, or give "
            "another --output to train anew"
        )

    def _rows(self) -> Iterable[list[str]]:
        for split, part in zip(DATASET_SPLITS, (self.train, self.validation), strict=True):
            for pair, digest in zip(part.examples.pairs, part.digests, strict=True):
                yield [pair.image, pair.mask, split, pair.key, digest]


def _describe_changes(
    before: dict[str, list[str]], now: dict[str, list[str]], names: dict[str, str]
) -> str:
    """What is different between the digests of two data sets, in words."""
    changes = {
        "gone or unreadable": before.keys() - now.keys(),
        "changed": {key for key in before.keys() & now.keys() if before[key] != now[key]},
    }
    parts = [
        f"{len(keys)} pair(s) {what}, the first: {names[min(keys)]}"
        for what, keys in changes.items()
        if keys
    ]
    return "; ".join(parts) or f"{DATASET} is not as that run wrote it"


def _digests(rows: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """The digests of the pairs by their keys.

    Not by their URIs: the data may lie elsewhere by now.
    """
    digests: dict[str, list[str]] = {}
    for *_, key, digest in rows:
        digests.setdefault(key, []).append(digest)
    return {key: sorted(values) for key, values in digests.items()}

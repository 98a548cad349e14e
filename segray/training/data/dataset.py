"""The data set of a run: recorded when the run starts, and verified when it resumes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from segray.data.labelled import Reading
from segray.data.pairs import Pair
from segray.data.pairs_csv import DATASET, DATASET_SPLITS, read_dataset, write_dataset
from segray.data.skipped import Skipped
from segray.errors import InputError
from segray.pixels.orientation import Says
from segray.training.data.examples import Decoded
from segray.training.marker import read_marker


@dataclass(frozen=True)
class DataSet:
    """The training set and the validation set of a run.

    Attributes:
        train: the decoded training set.
        validation: the decoded validation set.
    """

    train: Decoded
    validation: Decoded

    def with_reading(self, reading: Reading) -> "DataSet":
        """Return this data set with another `Reading`, which must decode it to the same arrays."""
        train, validation = (
            replace(part, examples=replace(part.examples, reading=reading))
            for part in (self.train, self.validation)
        )
        return DataSet(train, validation)

    @property
    def fingerprint(self) -> str:
        """A digest of the names and the content of all files, and of their splits."""
        return f"{self.train.fingerprint}-{self.validation.fingerprint}"

    @property
    def says(self) -> list[Says]:
        """The evidence from each pair on the orientation in which masks were drawn."""
        return self.train.says + self.validation.says

    @property
    def turned(self) -> int:
        """The number of masks that were rotated with their images."""
        return self.train.turned + self.validation.turned

    @property
    def reading(self) -> Reading:
        """The settings with which the files are read."""
        return self.train.examples.reading

    @property
    def skipped(self) -> list[Skipped]:
        """The pairs that could not be decoded."""
        return self.train.skipped + self.validation.skipped

    def write(self, output: str) -> None:
        """Write ``pairs.csv``, with a digest of the content of each pair.

        Raises:
            InputError: the file cannot be written.
        """
        write_dataset(output, self._rows())

    def check(self, output: str, found: Sequence[Pair]) -> None:
        """Verify that the run in a folder was started with this data.

        Args:
            output: the URI of the folder.
            found: the pairs of that run that still exist, including those that could not be
                decoded.

        Raises:
            InputError: the data differ; the message names the differences.
        """
        marker = read_marker(output)
        if marker and marker["data_fingerprint"] == self.fingerprint:
            return
        if before := read_dataset(output):
            reasons = {item.image: item.reason for item in self.skipped}
            # Data may have been moved, so a file is named by its present location if it has one.
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
    """Describe the differences between the digests of two data sets in words."""
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
    """Return the digests of the pairs by their keys.

    URIs are no use as keys here, because the data may have been moved.
    """
    digests: dict[str, list[str]] = {}
    for *_, key, digest in rows:
        digests.setdefault(key, []).append(digest)
    return {key: sorted(values) for key, values in digests.items()}

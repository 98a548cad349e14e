"""``pairs.csv``: the pairs that a training run uses, listed in the run's folder."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace

from segray.data.pairs import Pair
from segray.storage.files import read_bytes, write_bytes
from segray.storage.uri import exists, join_uri

#: The file in a run's folder that lists the pairs that the run uses.
DATASET = "pairs.csv"
#: Its columns; ``digest`` is the digest of the content of both files.
DATASET_COLUMNS = ("image", "mask", "split", "key", "digest")
#: The values of its column ``split``.
DATASET_SPLITS = ("train", "validation")


def write_dataset(output: str, rows: Iterable[Sequence[str]]) -> None:
    """Write the ``pairs.csv`` of a run: the pairs in use, in the format of --pairs.

    Args:
        output: the URI of the run's folder.
        rows: the cells of each pair, in the order of `DATASET_COLUMNS`.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.StringIO(newline="")
    table = csv.writer(buffer)
    table.writerow(DATASET_COLUMNS)
    table.writerows(rows)
    write_bytes(join_uri(output, DATASET), buffer.getvalue().encode())


def read_dataset(output: str) -> list[list[str]]:
    """Read the rows of the ``pairs.csv`` of a run, without the header.

    The list is empty if the file is gone, damaged, or another table of that name.

    Args:
        output: the URI of the run's folder.

    Raises:
        InputError: the store cannot be asked.
    """
    uri = join_uri(output, DATASET)
    text = read_bytes(uri).decode("utf-8-sig", errors="replace") if exists(uri) else ""
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""))
    except (csv.Error, ValueError):
        return []
    if tuple(header) != DATASET_COLUMNS:
        return []
    return [row for row in rows if len(row) == len(header) and row[2] in DATASET_SPLITS]


def select_pairs(
    rows: Sequence[Sequence[str]], train: list[Pair], validation: list[Pair]
) -> tuple[list[Pair], list[Pair]]:
    """Select the pairs that a run was started with, in its order and with its splits.

    Splitting the pairs again would give other splits if a single pair had been added or repaired.

    Args:
        rows: the rows of `read_dataset`.
        train: the pairs found, without those of `validation`.
        validation: the validation pairs found; empty if they are split from `train`.
    """
    image_of = {pair.image: pair for pair in train + validation}
    # Data may have been moved; the names below their folder are then still the same.
    key_of = {
        "train": {pair.key: pair for pair in train},
        "validation": {pair.key: pair for pair in validation or train},
    }
    parts: dict[str, list[Pair]] = {"train": [], "validation": []}
    for image, _, split, key, _ in rows:
        pair = image_of.get(image) or key_of[split].get(key)
        if pair:
            parts[split].append(replace(pair, key=key))
    return parts["train"], parts["validation"]

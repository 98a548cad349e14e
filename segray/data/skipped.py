"""Skipped files: a list of the files that a run leaves out, and a limit on their share."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from segray.errors import InputError
from segray.storage.files import write_bytes


@dataclass(frozen=True)
class Skipped:
    """A file, or a pair of files, that is not used.

    At least one of image and mask is given.

    Attributes:
        image: the URI of the image, or None for a mask without a partner.
        mask: the URI of the mask, or None for an image without a partner.
        reason: the reason for a person, on one line.
    """

    image: str | None
    mask: str | None
    reason: str


def write_skipped(uri: str, skipped: Sequence[Skipped]) -> None:
    """Write the list as JSON lines with ``image``, ``mask`` and ``reason``.

    The same files and reasons give the same bytes in any order. An empty list gives an empty file.

    Raises:
        InputError: the list cannot be written.
    """
    lines = [json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in _in_order(skipped)]
    write_bytes(uri, "".join(lines).encode())


def check_error_rate(
    skipped: Sequence[Skipped], total: int, limit: float, skipped_uri: str
) -> None:
    """Raise an error if too many files are left out.

    Args:
        skipped: the files that are left out.
        total: the number of all pairs, including those in `skipped` and files without a partner.
        limit: --max-error-rate, the largest accepted share, 0 to 1.
        skipped_uri: the URI of the list that `write_skipped` wrote.

    Raises:
        InputError: the share is above the limit.
    """
    if not skipped or len(skipped) / total <= limit:
        return
    first = _in_order(skipped)[0]
    names = [name for name in (first.image, first.mask) if name]
    named = any(name in first.reason for name in names)
    reason = first.reason if named else f"{names[0]}: {first.reason}"
    # A single flag, such as --classes, may be the reason for all of them.
    way_out = "repair them or correct the flags"
    if len(skipped) < total:
        way_out += ", or raise --max-error-rate"
    raise InputError(
        f"{len(skipped)} of {total} pairs ({len(skipped) / total:.2%}) cannot be used, over "
        f"--max-error-rate {limit:.2%}; the first: {reason}; {skipped_uri} lists them all: "
        f"{way_out}"
    )


def _in_order(skipped: Sequence[Skipped]) -> list[Skipped]:
    return sorted(skipped, key=lambda item: (item.image or "", item.mask or "", item.reason))

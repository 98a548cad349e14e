"""Skipped files: what a run leaves out and why, as a list to read and as a limit to keep."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from segray.errors import InputError
from segray.storage.files import write_bytes


@dataclass(frozen=True)
class Skipped:
    """A file, or a pair of files, that is not used.

    At least one of the two is there.

    Attributes:
        image: the image's URI, or None where a mask has no partner.
        mask: the mask's URI, or None where an image has no partner.
        reason: why, for a person, on one line.
    """

    image: str | None
    mask: str | None
    reason: str


def write_skipped(uri: str, skipped: Sequence[Skipped]) -> None:
    """Write the list as JSON lines with ``image``, ``mask`` and ``reason``.

    The same files and reasons give the same bytes, in whatever order they come; none give an
    empty file.

    Raises:
        InputError: it cannot be written.
    """
    lines = [json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in _in_order(skipped)]
    write_bytes(uri, "".join(lines).encode())


def check_error_rate(
    skipped: Sequence[Skipped], total: int, limit: float, skipped_uri: str
) -> None:
    """Refuse to go on where too much is left out.

    Args:
        skipped: what is left out.
        total: of how many pairs, all in `skipped` among them, files without a partner too.
        limit: --max-error-rate, the largest share that is accepted, 0 to 1.
        skipped_uri: where `write_skipped` wrote the list.

    Raises:
        InputError: the share is over the limit.
    """
    if not skipped or len(skipped) / total <= limit:
        return
    first = _in_order(skipped)[0]
    names = [name for name in (first.image, first.mask) if name]
    named = any(name in first.reason for name in names)
    reason = first.reason if named else f"{names[0]}: {first.reason}"
    # One flag may be behind them all, such as --classes.
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

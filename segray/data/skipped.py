"""Skipped files: a list of the files that a run leaves out, and a limit on their share."""

import json
import re
from collections import Counter
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
        total: the number of all pairs, including those in `skipped`, and of files without a
            partner.
        limit: --max-error-rate, the largest accepted share, 0 to 1.
        skipped_uri: the URI of the list that `write_skipped` wrote.

    Raises:
        InputError: the share is above the limit.
    """
    if not skipped or len(skipped) / total <= limit:
        return
    lone = [item for item in skipped if item.image is None or item.mask is None]
    unusable = [item for item in skipped if item.image and item.mask]
    pairs = total - len(lone)
    if unusable:
        # A single flag, such as --classes, may be the reason for all of them.
        what, way_out = f"{len(unusable)} of {pairs} pairs cannot be used", "repair them"
        if lone:
            what += f" and {len(lone)} file(s) have no partner"
    else:
        what = f"{len(lone)} file(s) have no partner, beside {pairs} pair(s)"
        way_out = "add their partners"
    way_out += " or correct the flags"
    if len(skipped) < total:
        way_out += ", or raise --max-error-rate"
    reasons = "; ".join(describe_first(items) for items in (unusable, lone) if items)
    raise InputError(
        f"{what} ({len(skipped) / total:.2%}), over --max-error-rate {limit:.2%}; {reasons}; "
        f"{skipped_uri} lists them all: {way_out}"
    )


def describe_first(skipped: Sequence[Skipped]) -> str:
    """Describe on one line the first file, or pair, of those with the most frequent reason.

    Args:
        skipped: at least one.
    """
    kinds = [(_kind(item), item) for item in _in_order(skipped)]
    [(most, count)] = Counter(kind for kind, _ in kinds).most_common(1)
    first = next(item for kind, item in kinds if kind == most)
    names = [name for name in (first.image, first.mask) if name]
    named = any(name in first.reason for name in names)
    reason = first.reason if named else f"{names[0]}: {first.reason}"
    return f"the first{f' of {count} alike' if count > 1 else ''}: {reason}"


def _kind(item: Skipped) -> str:
    """Return what is the same in reasons that differ only in the names and numbers in them."""
    if item.image is None or item.mask is None:
        return "no image" if item.image is None else "no mask"
    return re.sub(r"\d+", "", item.reason.replace(item.image, "").replace(item.mask, ""))


def _in_order(skipped: Sequence[Skipped]) -> list[Skipped]:
    return sorted(skipped, key=lambda item: (item.image or "", item.mask or "", item.reason))

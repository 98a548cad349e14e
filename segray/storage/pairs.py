"""Pairs: which mask belongs to which image, and which pairs are kept for validation."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from segray.errors import InputError
from segray.pixels.decoding import SUFFIXES
from segray.storage.listing import list_entries, relative_key
from segray.storage.skipped import Skipped
from segray.storage.uri import absolute_uri


@dataclass(frozen=True)
class Pair:
    """An image and its mask, by URI; `key` is what their names share."""

    key: str
    image: str
    mask: str


@dataclass(frozen=True)
class Pairing:
    """What was found: the pairs, and the images and masks without a partner, by their keys."""

    pairs: list[Pair]
    skipped: list[Skipped]


def find_pairs(images: str, masks: str) -> Pairing:
    """Pair the files of two folders by their names without suffix, at any depth.

    Where a name alone is not unique, the path below the folder counts as well.

    Raises:
        InputError: a folder is missing or empty, two files claim one place, or nothing matches.
    """
    images, masks = absolute_uri(images), absolute_uri(masks)
    image_uris = _list(images, "image")
    mask_uris = _list(masks, "mask")
    key_of = _stem
    if _repeats(images, image_uris, _stem) or _repeats(masks, mask_uris, _stem):
        key_of = _path
        for root, uris in ((images, image_uris), (masks, mask_uris)):
            for key, same in _repeats(root, uris, _path).items():
                raise InputError(
                    f"{same[0]} and {same[1]} share the name {key}: remove or rename one of them"
                )
    image_of = {key_of(images, uri): uri for uri in image_uris}
    mask_of = {key_of(masks, uri): uri for uri in mask_uris}
    keys = sorted(image_of.keys() & mask_of.keys())
    if not keys:
        raise InputError(
            f"no image matches a mask: {images} has names such as {min(image_of)} and {masks} "
            f"such as {min(mask_of)}; a pair shares its name up to the suffix"
        )
    pairs = [Pair(key, image_of[key], mask_of[key]) for key in keys]
    skipped = [
        Skipped(image_of[key], None, f"no mask below {masks} is named {key}")
        for key in sorted(image_of.keys() - mask_of.keys())
    ] + [
        Skipped(None, mask_of[key], f"no image below {images} is named {key}")
        for key in sorted(mask_of.keys() - image_of.keys())
    ]
    return Pairing(pairs, skipped)


def split_pairs(pairs: Sequence[Pair], fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Draw the validation part: the same seed and the same keys give the same split.

    Returns:
        The pairs to train on and those to validate on, at least one each.

    Raises:
        InputError: there are fewer than two pairs.
    """
    if len(pairs) < 2:
        raise InputError(
            "found 1 pair of image and mask: at least two are needed, one to train on and one to "
            "validate on"
        )
    count = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(pairs))[:count].tolist())
    train = [pair for i, pair in enumerate(pairs) if i not in chosen]
    return train, [pairs[i] for i in sorted(chosen)]


def _list(root: str, what: str) -> list[str]:
    entries = list_entries(root)
    # What the content is decides later; this keeps notes and sidecar files out.
    suffixes = (*SUFFIXES, "")
    uris = [e.uri for e in entries if PurePosixPath(e.uri).suffix.lower() in suffixes]
    if not uris:
        raise InputError(
            f"no {what} found: of the {len(entries)} files below {root} none ends in "
            f"{', '.join(SUFFIXES)}"
        )
    return uris


def _stem(root: str, uri: str) -> str:
    return PurePosixPath(uri).stem


def _path(root: str, uri: str) -> str:
    return str(PurePosixPath(relative_key(root, uri)).with_suffix(""))


def _repeats(root: str, uris: list[str], key_of: Callable[[str, str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        groups[key_of(root, uri)].append(uri)
    return {key: same for key, same in groups.items() if len(same) > 1}

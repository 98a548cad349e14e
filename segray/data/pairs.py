"""Pairs: match images with masks, and split off a validation set."""

import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np

from segray.data.skipped import Skipped
from segray.errors import InputError
from segray.pixels.decoding import SUFFIXES
from segray.storage.listing import list_entries, relative_key
from segray.storage.uri import absolute_uri, exists, is_local, lies_in

# File formats in which one file annotates many images.
_ANNOTATIONS = (".json", ".xml", ".csv", ".parquet", ".txt", ".zip", ".npy", ".npz", ".mat")
# The number of masks whose names are compared to suggest a suffix.
_COMPARED = 1000
# What the name of a mask often ends with, and that of its image does not.
_MASK_ENDING = re.compile(r"[-_.](?:masks?|labels?|labelids|gt|seg|trimap)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """An image and its mask, by URI; `key` is the part of their names that they share."""

    key: str
    image: str
    mask: str


@dataclass(frozen=True)
class Pairing:
    """The result of pairing: the pairs, and the images and masks without a partner, by key."""

    pairs: list[Pair]
    skipped: list[Skipped]


def find_pairs(images: str, masks: str, image_suffix: str = "", mask_suffix: str = "") -> Pairing:
    """Pair the files of two folders by their names without suffixes, at any depth.

    If a name alone is not unique, the path below the folder counts as well. Names that differ only
    in their Unicode normalisation are equal. A mask may have the suffix of its image before its
    own. One folder may be inside the other, or the same if a suffix distinguishes images from
    masks.

    Args:
        images: the URI of the folder of images.
        masks: the URI of the folder of masks.
        image_suffix: the ending of image names, before the file suffix, that the names of their
            masks lack, such as ``_leftImg8bit``. Other files are not images.
        mask_suffix: likewise for masks, such as ``_mask``.

    Raises:
        InputError: a folder is missing or empty, images and masks cannot be distinguished, two
            files have the same key, or nothing matches.
    """
    images, masks = absolute_uri(images), absolute_uri(masks)
    image_suffix, mask_suffix = _bare(image_suffix), _bare(mask_suffix)
    _refuse_annotations(masks)
    if _is_same(images, masks) and not (image_suffix or mask_suffix):
        raise InputError(
            f"images and masks are both to be found in {images}, and nothing tells them apart: "
            "give folders of their own, or --mask-suffix with what the names of the masks end "
            "with, such as _mask"
        )
    image_uris = _list_kind(images, image_suffix, masks, mask_suffix, "image")
    mask_uris = _list_kind(masks, mask_suffix, images, image_suffix, "mask")
    image_of, mask_of = _keyed((images, image_uris, image_suffix), (masks, mask_uris, mask_suffix))
    keys = sorted(image_of.keys() & mask_of.keys())
    if not keys:
        raise InputError(
            f"no image matches a mask: {images} has names such as {min(image_of)} and {masks} "
            f"such as {min(mask_of)}; a pair shares its name up to the suffix: "
            f"{_advise(image_of.keys(), mask_of.keys())}"
        )
    pairs = [Pair(key, image_of[key], mask_of[key]) for key in keys]
    skipped = [
        Skipped(image_of[key], None, f"no mask below {masks} is named {key}{mask_suffix}")
        for key in sorted(image_of.keys() - mask_of.keys())
    ] + [
        Skipped(None, mask_of[key], f"no image below {images} is named {key}{image_suffix}")
        for key in sorted(mask_of.keys() - image_of.keys())
    ]
    return Pairing(pairs, skipped)


def check_output(output: str, *folders: str | None) -> None:
    """Refuse an output whose pictures the next job would take for images or masks.

    Args:
        output: the value of --output.
        folders: the URIs of the folders of images and masks, as far as they are given.

    Raises:
        InputError: it lies in one of them.
    """
    output = absolute_uri(output)
    for folder in map(absolute_uri, filter(None, folders)):
        if lies_in(output, folder):
            raise InputError(
                f"--output {output} lies among the images or masks below {folder}, and the next "
                "job would take its pictures for some of them: give another --output"
            )


def split_pairs(pairs: Sequence[Pair], fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split off a validation set at random. The same seed and keys give the same split.

    Returns:
        The training pairs and the validation pairs, at least one each.

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


def _refuse_annotations(masks: str) -> None:
    if PurePosixPath(masks).suffix.lower() in _ANNOTATIONS and exists(masks):
        raise InputError(
            f"{masks} is a file of annotations: segray learns from a folder of masks, an "
            "image file for each photograph; docs/data.md shows how to draw them from annotations"
        )


def _list_kind(root: str, suffix: str, other: str, other_suffix: str, what: str) -> list[str]:
    """List the URIs of the images or of the masks, without those of the other kind."""
    uris = _list(root, what)
    if other.startswith(f"{root}/"):
        uris = [uri for uri in uris if not uri.startswith(f"{other}/")]
    if suffix:
        uris = [uri for uri in uris if _bare(uri).endswith(suffix)]
    elif _is_same(root, other):
        uris = [uri for uri in uris if not _bare(uri).endswith(other_suffix)]
    if not uris:
        raise InputError(
            f"no {what} found below {root} whose name ends in {suffix} before the file suffix: "
            f"correct --{what}-suffix"
            if suffix
            else f"no {what} found below {root}, apart from what is below {other}"
        )
    return uris


def _is_same(folder: str, other: str) -> bool:
    real = [Path(uri).resolve() if is_local(uri) else uri for uri in (folder, other)]
    return real[0] == real[1]


def _list(root: str, what: str) -> list[str]:
    entries = list_entries(root)
    # The content is checked later; the suffix excludes notes and sidecar files.
    suffixes = (*SUFFIXES, "")
    uris = [e.uri for e in entries if PurePosixPath(e.uri).suffix.lower() in suffixes]
    if not uris:
        raise InputError(
            f"no {what} found: of the {len(entries)} files below {root} none ends in "
            f"{', '.join(SUFFIXES)}"
        )
    return uris


# A folder, the URIs of its files, and the ending that the names of their partners lack.
_Side = tuple[str, list[str], str]


def _keyed(*sides: _Side) -> tuple[dict[str, str], ...]:
    """Return the URIs of images and of masks by key, the shortest name that is unique."""
    for key_of in (_stem, _path):
        keyed = [_group(side, key_of) for side in sides]
        if all(len(same) == 1 for groups in keyed for same in groups.values()):
            return tuple({key: uri for key, [uri] in groups.items()} for groups in keyed)
    # Masks may be named as jobs/export.py names them, after the whole name of the image. Images
    # that differ in their suffix only then have masks of their own.
    (images, image_uris, _), (masks, mask_uris, suffix) = sides
    whole = _group((images, image_uris, ""), lambda root, uri: _composed(relative_key(root, uri)))
    named = _group(
        (masks, mask_uris, suffix),
        lambda root, uri: _composed(relative_key(root, uri)).rpartition(".")[0],
    )
    if whole.keys() & named.keys():
        keyed = [whole, named]
    repeated = [item for groups in keyed for item in groups.items() if len(item[1]) > 1]
    if not repeated:
        return tuple({key: uri for key, [uri] in groups.items()} for groups in keyed)
    key, same = repeated[0]
    raise InputError(
        f"{same[0]} and {same[1]} share the name {key}: remove or rename one of them, or list the "
        "pairs in a table for --pairs"
    )


def _group(side: _Side, key_of: Callable[[str, str], str]) -> dict[str, list[str]]:
    root, uris, suffix = side
    groups: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        groups[key_of(root, uri).removesuffix(suffix)].append(uri)
    return groups


def find_masks(uris: Sequence[str]) -> tuple[list[str], str]:
    """Find files that are named like masks of others: a_mask.png, or a.png, beside a.jpg.

    Returns:
        Their URIs, and a pattern of --exclude that matches the first of them.
    """
    stems = {uri: posixpath.splitext(uri)[0] for uri in uris}
    photographs = {stem for uri, stem in stems.items() if uri.lower().endswith((".jpg", ".jpeg"))}
    masks, patterns = [], []
    for uri, stem in stems.items():
        suffix = uri.removeprefix(stem)
        ending = _MASK_ENDING.search(stem)
        if ending and stem.removesuffix(ending[0]) in photographs:
            masks.append(uri)
            patterns.append(f"*{ending[0]}{suffix}")
        elif suffix.lower() == ".png" and stem in photographs:
            masks.append(uri)
            patterns.append(f"*{suffix}")
    return masks, patterns[0] if patterns else ""


def _stem(root: str, uri: str) -> str:
    return _bare(uri)


def _path(root: str, uri: str) -> str:
    folder = _composed(relative_key(root, uri)).rpartition("/")[0]
    return f"{folder}/{_bare(uri)}" if folder else _bare(uri)


def _bare(uri: str) -> str:
    """Return the name of a file without suffixes of image files, normalised to NFC."""
    name = _composed(uri).rpartition("/")[2]
    while (dot := name.rfind(".")) >= 0 and name[dot:].lower() in SUFFIXES:
        name = name[:dot]
    return name


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _advise(images: Collection[str], masks: Collection[str]) -> str:
    """Suggest what to do if no names match."""
    known = set(images)
    # For each mask, find the longest image name that its name begins with, and count the rests.
    beyond = Counter(
        mask[length:]
        for mask in islice(masks, _COMPARED)
        for length in [next((n for n in range(len(mask), 0, -1) if mask[:n] in known), 0)]
        if length
    )
    if beyond:
        return f"give --mask-suffix {beyond.most_common(1)[0][0]}"
    if _differ_in_front(images, masks):
        return "list the pairs in a table for --pairs, as these names differ in front"
    return (
        "give what the names have beyond that as --mask-suffix and --image-suffix, or list the "
        "pairs in a table for --pairs"
    )


def _differ_in_front(images: Collection[str], masks: Collection[str]) -> bool:
    """Return True if names begin differently, so that no suffix makes them equal."""
    sides = [{key.rpartition("/")[2] for key in keys} for keys in (images, masks)]
    if not {name[:1] for name in sides[0]} & {name[:1] for name in sides[1]}:
        return True
    # Or if those of one side end with those of the other.
    return any(
        name[start:] in others
        for names, others in (sides, sides[::-1])
        for name in islice(names, _COMPARED)
        for start in range(1, len(name))
    )

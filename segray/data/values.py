"""Values: the range of pixel values of images of more than 8 bits per channel, from a sample."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from threading import Event, Timer

from segray.pixels.decoding import DecodeError, read_reach
from segray.pixels.wide import MAX_VALUE, ValueRange, choose_range
from segray.storage.failures import FetchError
from segray.storage.objects import fetch
from segray.storage.parallel import map_ahead

log = logging.getLogger(__name__)

# The usual suffixes of formats with 8 bits per channel, whose files are not fetched.
_NARROW = (".jpg", ".jpeg", ".webp", ".bmp", ".gif")

_READERS = 8

# The number of images that are checked; only the first few if these, and those that the model was
# trained on, have 8 bits.
_SAMPLE, _FEW = 64, 8
# The time limit in seconds for a store that hardly answers.
_PATIENCE = 20.0
# Shares of the range that a model was trained on, and of all 16 bits, of which 14 bits are a
# quarter; images with all values below them appear dark.
_DARK, _DARK_OF_16_BITS = 1 / 8, 0.3


def may_be_wide(uri: str) -> bool:
    """Return True if a file, by its name, may have more than 8 bits per channel."""
    return PurePosixPath(uri).suffix.lower() not in _NARROW


def read_reaches(uris: Sequence[str], patience: float = 3600.0) -> list[int]:
    """Read the greatest value of each image of more than 8 bits per channel (`read_reach`).

    Other images are left out, as are those that cannot be read.

    Args:
        uris: the URIs of the images.
        patience: the seconds after which no more requests are sent.
    """
    stopped = Event()
    timer = Timer(patience, stopped.set)
    timer.daemon = True
    timer.start()
    try:
        wide = [uri for uri in uris if may_be_wide(uri)]
        found = map_ahead(partial(_read_reach, stopped=stopped), wide, _READERS)
        return [highest for highest in found if highest is not None]
    finally:
        timer.cancel()


def _read_reach(uri: str, stopped: Event) -> int | None:
    try:
        return None if stopped.is_set() else read_reach(fetch(uri, stopped=stopped))
    except (DecodeError, FetchError):
        return None  # reported where the image is used


def spread(uris: Sequence[str], most: int) -> Sequence[str]:
    """Return at most `most` items, evenly spread over a list."""
    count = min(most, len(uris))
    return [uris[i * len(uris) // count] for i in range(count)]


def check_values(uris: Sequence[str], value_range: ValueRange | None) -> None:
    """Warn if the first images of a set do not match the range of values that a run assumes.

    Args:
        uris: the URIs of the images, in order.
        value_range: see `segray.pixels.decoding.read_picture`.
    """
    uris = [uri for uri in uris if may_be_wide(uri)][:_SAMPLE]
    highest = read_reaches(uris[:_FEW], _PATIENCE)
    if value_range is None:
        if not highest:
            return
        low, high = 0, MAX_VALUE
    else:
        low, high = value_range
    highest += read_reaches(uris[_FEW:], _PATIENCE)
    if value_range is None:
        # Images with no value above 255 are used unchanged.
        highest = [value for value in highest if value > 255]
    better = choose_range(highest)
    if better is None:
        return
    greatest = max(highest)
    if greatest > high:
        what = "what is above is white"
    elif greatest - low < (_DARK if value_range else _DARK_OF_16_BITS) * (high - low):
        what = "they come out dark"
    else:
        return
    log.info(
        f"the first images have values to {greatest}, and {low} to {high} is taken for black to "
        f"white, so that {what}: if they are of another range than the model's training images, "
        f"give --value-range {better[0]} {better[1]}"
    )

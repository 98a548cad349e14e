"""Values: how far those of images of more than 8 bits a channel reach, found out over a sample."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath
from threading import Event, Timer

from segray.pixels.decoding import DecodeError, read_reach
from segray.pixels.wide import MAX_VALUE, ValueRange, choose_range
from segray.storage.failures import FetchError
from segray.storage.objects import fetch
from segray.storage.parallel import map_ahead

# Formats of 8 bits, by the suffixes that they usually have: their files are not fetched.
_NARROW = (".jpg", ".jpeg", ".webp", ".bmp", ".gif")

_READERS = 8

# Of so many images the values are looked at; of the first few alone where these have 8 bits and
# the model, too, has learned from such.
_SAMPLE, _FEW = 64, 8
# What a store that hardly answers may cost, in seconds.
_PATIENCE = 20.0
# A share of the range; images all of whose values are below it come out nearly black.
_DARK = 1 / 8


def may_be_wide(uri: str) -> bool:
    """Whether a file may have more than 8 bits a channel, by its name."""
    return PurePosixPath(uri).suffix.lower() not in _NARROW


def read_reaches(uris: Sequence[str], patience: float = 3600.0) -> list[int]:
    """How far the values of each image of more than 8 bits a channel reach (`read_reach`).

    Other images are left out, and so are those that cannot be read.

    Args:
        uris: of the images.
        patience: seconds after which no further request is made.
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
        return None  # what is wrong with it is told where it is used


def spread(uris: Sequence[str], most: int) -> Sequence[str]:
    """At most so many of a list, evenly spread over it."""
    count = min(most, len(uris))
    return [uris[i * len(uris) // count] for i in range(count)]


def tell_of_values(
    uris: Sequence[str], value_range: ValueRange | None, tell: Callable[[str], None]
) -> None:
    """Say so where the first images of a set have other values than a run takes them for.

    Args:
        uris: of the images, in their order.
        value_range: as `segray.pixels.decoding.read_picture` has it.
        tell: is called with a line for the user's terminal, or not at all.
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
        # An image with no value over 255 is taken as it is.
        highest = [value for value in highest if value > 255]
    better = choose_range(highest)
    if better is None:
        return
    greatest = max(highest)
    if greatest > high:
        what = "what is above is white"
    elif greatest - low < _DARK * (high - low):
        what = "they come out nearly black"
    else:
        return
    tell(
        f"the first images have values to {greatest}, and {low} to {high} is taken for black to "
        f"white, so that {what}: if they are of another range than the model's training images, "
        f"give --value-range {better[0]} {better[1]}"
    )

"""Labels: the classes, the mask values that stand for them, and their colours."""

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segray.errors import InputError

#: The class id of ignored pixels (ignore_index), which losses and metrics leave out.
IGNORED = 255

MAX_CLASSES = 255
MAX_VALUE = 65535
MAX_COLOUR = 0xFFFFFF

# The number of unclaimed values that an error message lists.
_NAMED_VALUES = 5
# The maximum length of a flag that an error message repeats.
_FLAG_LENGTH = 120

# The colour-blind-safe qualitative palette of Okabe and Ito (https://jfly.uni-koeln.de/color/),
# without its black, strongest contrasts first.
_OKABE_ITO = (
    (230, 159, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)

# A class name becomes the end of a column's name; a hyphen or a blank in it requires quotes in SQL.
_NAME = re.compile(r"[^\W\d_](?:[\w -]{0,61}[\w-])?")
# A number, or a colour in the notation of HTML.
_VALUE = re.compile(r"[0-9]{1,9}|#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Labels:
    """The classes of a model, in the order of their ids.

    Attributes:
        names: the name of each class; class id ``i`` is ``names[i]``.
        values: the value of each class in mask files: a number from 0 to 65535 or, if `coloured`,
            an RGB colour as 0xRRGGBB.
        ignored: the ignore values, mask values of the same kind whose pixels losses and metrics
            leave out.
        coloured: True if the values are colours.
        others_ignored: True if all other values are ignored as well.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...] = ()
    coloured: bool = False
    others_ignored: bool = False

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise InputError(
                f"--classes names {len(self.names)} class(es), and segmenting needs at least two: "
                "give each as name=value, for example --classes pet=1 background=2"
            )
        if len(self.names) > MAX_CLASSES:
            raise InputError(
                f"--classes names {len(self.names)} classes; at most {MAX_CLASSES} fit in a mask"
            )
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"--classes: {name!r} cannot be a class name: begin with a letter and go on "
                    "with letters, digits, _, - or blanks between words, 63 characters at most"
                )
        # DuckDB and most SQL engines ignore the case of column names.
        _refuse_repeated("name", [repr(name.casefold()) for name in self.names])
        highest = MAX_COLOUR if self.coloured else MAX_VALUE
        for value in (*self.values, *self.ignored):
            if not 0 <= value <= highest:
                raise InputError(f"--classes: the mask value {value} is not in 0 to {highest}")
        _refuse_repeated("value", [self._spell(value) for value in (*self.values, *self.ignored)])

    @classmethod
    def parse(
        cls,
        classes: Sequence[str],
        ignored: Sequence[str | int] = (),
        others_ignored: bool = False,
    ) -> "Labels":
        """Parse the words of ``--classes`` and ``--ignore-values``.

        Args:
            classes: words ``name=value``, whose value is an integer or a colour as ``#rrggbb``.
            ignored: values of the same kind.
            others_ignored: see `Labels`.

        Raises:
            InputError: a word is invalid, numbers and colours are mixed, or the classes break a
                rule of `Labels`.
        """
        names, values = [], []
        for word in classes:
            name, equals, value = word.rpartition("=")
            if not equals or not _VALUE.fullmatch(value):
                raise InputError(
                    f"--classes: {word!r} is not name=value with a whole number, such as pet=1, "
                    "or with a colour of six hexadecimal digits, such as pet=#804080"
                )
            names.append(name)
            values.append(value)
        others = [str(word) for word in ignored]
        for word in others:
            if not _VALUE.fullmatch(word):
                # In quotes, because a shell treats a word that begins with # as a comment.
                raise InputError(
                    f"--ignore-values: {word!r} is neither a whole number, such as 255, nor a "
                    "colour, such as '#000000': give it as in --classes"
                )
        coloured = _are_colours([*values, *others])
        return cls(tuple(names), _numbers(values), _numbers(others), coloured, others_ignored)

    @property
    def words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The words of ``--classes`` and ``--ignore-values`` that `parse` makes the same of."""
        form = "#{:06x}" if self.coloured else "{}"
        classes = zip(self.names, map(form.format, self.values), strict=True)
        return tuple(map("=".join, classes)), tuple(map(form.format, self.ignored))

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Labels":
        """Read labels that `to_json` wrote. Older bundles lack the switches."""
        names, values, ignored = (tuple(document[key]) for key in ("names", "values", "ignored"))
        switches = {name: document.get(name, False) for name in ("coloured", "others_ignored")}
        for name, switch in switches.items():
            if not isinstance(switch, bool):
                raise InputError(f"{name} is {switch!r}, and has to be true or false")
        return cls(names, values, ignored, **switches)

    def to_json(self) -> dict[str, Any]:
        """Return the labels, JSON-ready, for `from_json`."""
        return {
            "names": list(self.names),
            "values": list(self.values),
            "ignored": list(self.ignored),
            "coloured": self.coloured,
            "others_ignored": self.others_ignored,
        }

    def __len__(self) -> int:
        return len(self.names)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The RGB colour of each class, each channel in 0 to 255.

        If the masks are coloured, their colours are used. Otherwise the colour depends on the class
        id: after the seven hand-picked ones, hues are spread by the golden ratio's conjugate.
        """
        if self.coloured:
            return tuple((value >> 16, value >> 8 & 255, value & 255) for value in self.values)
        colours = list(_OKABE_ITO[: len(self)])
        for i in range(len(colours), len(self)):
            hue = (i * 0.618034) % 1.0
            red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (i % 2), 0.95 - 0.25 * (i % 3))
            colours.append((round(255 * red), round(255 * green), round(255 * blue)))
        return tuple(colours)

    @property
    def hex_palette(self) -> tuple[str, ...]:
        """The colour of each class in the notation of HTML, such as ``#e69f00``."""
        return tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in self.palette)

    def to_class_ids(self, mask: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        """Convert the values of a mask file to class ids.

        Args:
            mask: the values in the file, uint8 or uint16 [H, W]; for coloured labels uint32 [H, W]
                of 0xRRGGBB.

        Returns:
            uint8 [H, W] of class ids, `IGNORED` for ignored values.

        Raises:
            InputError: there are values that neither belong to a class nor are ignored. The message
                has the most frequent ones with their numbers of pixels; the caller adds the name of
                the file.
        """
        claimed = np.array((*self.values, *self.ignored), dtype=np.uint32)
        ids = np.array([*range(len(self)), *[IGNORED] * len(self.ignored)], dtype=np.uint8)
        order = np.argsort(claimed)
        claimed, ids = claimed[order], ids[order]
        # A mask consists of runs of equal pixels. Looking up each run is several times as fast as
        # looking up each pixel, and needs no table of 2**24 colours.
        pixels = mask.ravel()
        starts = np.flatnonzero(np.concatenate(([True], pixels[1:] != pixels[:-1])))
        lengths = np.diff(starts, append=pixels.size)
        values = pixels[starts].astype(np.uint32)
        places = np.minimum(np.searchsorted(claimed, values), len(claimed) - 1)
        unclaimed = claimed[places] != values
        found = ids[places]
        if unclaimed.any():
            if not self.others_ignored:
                raise InputError(
                    self._describe_unclaimed(
                        values[unclaimed], lengths[unclaimed], alone=bool(unclaimed.all())
                    )
                )
            found[unclaimed] = IGNORED
        return np.repeat(found, lengths).reshape(mask.shape)

    def _describe_unclaimed(
        self, values: npt.NDArray[np.uint32], lengths: npt.NDArray[np.int64], alone: bool
    ) -> str:
        """Explain why runs of unclaimed values, with lengths in pixels, cannot be used.

        Args:
            values: the value of each run.
            lengths: the pixels of each run.
            alone: True if the mask has no other value.
        """
        found, run_of = np.unique(values, return_inverse=True)
        counts = np.bincount(run_of, weights=lengths).astype(np.int64)
        most = np.argsort(-counts, kind="stable")[:_NAMED_VALUES]
        words = [self._spell(int(value)) for value in found[most]]
        held = [
            f"{word} in {counts[i]} pixel{'s' if counts[i] > 1 else ''}"
            for word, i in zip(words, most, strict=True)
        ]
        kind = "colour" if self.coloured else "value"
        more = len(found) - len(words)
        if more:
            held.append(f"{more} more")
        *first, last = held
        listed = f"s {', '.join(first)} and {last}" if first else f" {last}"
        claims = " ".join(
            f"{name}={self._spell(value)}"
            for name, value in zip(self.names, self.values, strict=True)
        )
        # The flag as it would have to be given, with the values it already has.
        ignored = [*map(self._spell, self.ignored), *words]
        flag = " ".join(f"'{word}'" if self.coloured else word for word in ignored)
        flag = f"--ignore-values {flag}"
        advice = f"train with a class for {'each' if first else 'it'}"
        if more or len(flag) > _FLAG_LENGTH:
            advice += ", or with --ignore-others, if they are smoothed edges or nothing to learn"
        elif not alone:  # a mask of which all is ignored would teach nothing
            advice += f", or with {flag}"
        return (
            f"has the {kind}{listed}, which none of --classes {_shorten(claims)} claims: {advice}"
        )

    def _spell(self, value: int) -> str:
        return f"#{value:06x}" if self.coloured else str(value)


def _are_colours(words: Sequence[str]) -> bool:
    colours = [word for word in words if word.startswith("#")]
    numbers = [word for word in words if not word.startswith("#")]
    if colours and numbers:
        raise InputError(
            f"--classes and --ignore-values mix the number {numbers[0]} and the colour "
            f"{colours[0]}: give all of them as numbers, or all as colours such as '#804080'"
        )
    return bool(colours)


def _numbers(words: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(word[1:], 16) if word.startswith("#") else int(word) for word in words)


def _refuse_repeated(what: str, items: Sequence[str]) -> None:
    repeated = [item for item in dict.fromkeys(items) if items.count(item) > 1]
    if repeated:
        raise InputError(f"--classes and --ignore-values: the {what} {repeated[0]} stands twice")


def _shorten(text: str, limit: int = _FLAG_LENGTH) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"

"""Labels: which classes there are, which mask values mean them, and how they are coloured."""

import colorsys
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segray.errors import InputError

#: The class id of a pixel that no loss and no metric counts.
IGNORED = 255

MAX_CLASSES = 255
MAX_VALUE = 65535

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

# A class name becomes the end of a column's name; one with a hyphen needs quotes in SQL.
_NAME = re.compile(r"[^\W\d_][\w-]{0,62}")


@dataclass(frozen=True)
class Labels:
    """The classes of a model, in the order of their ids.

    Attributes:
        names: one name per class; class id ``i`` is called ``names[i]``.
        values: the value that stands for each class in mask files, 0 to 65535.
        ignored: mask values whose pixels are left out of loss and metrics.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...] = ()

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
                    "with letters, digits, _ or -, 63 characters at most"
                )
        # Columns are told apart without regard to case by DuckDB and most SQL engines.
        _refuse_repeated("name", [name.casefold() for name in self.names])
        _refuse_repeated("value", [*self.values, *self.ignored])
        for value in (*self.values, *self.ignored):
            if not 0 <= value <= MAX_VALUE:
                raise InputError(f"--classes: the mask value {value} is not in 0 to {MAX_VALUE}")

    @classmethod
    def parse(cls, classes: Sequence[str], ignored: Iterable[int] = ()) -> "Labels":
        """Read the ``name=value`` words of ``--classes`` and the values of ``--ignore-values``.

        Raises:
            InputError: a word is no ``name=value``, or the classes break a rule of `Labels`.
        """
        names, values = [], []
        for word in classes:
            name, equals, value = word.rpartition("=")
            if not equals or not value.isascii() or not value.isdigit():
                raise InputError(
                    f"--classes: {word!r} is not name=value with a whole number, such as pet=1"
                )
            names.append(name)
            values.append(int(value))
        return cls(tuple(names), tuple(values), tuple(ignored))

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Labels":
        """The labels that `to_json` wrote."""
        return cls(*(tuple(document[key]) for key in ("names", "values", "ignored")))

    def to_json(self) -> dict[str, list[Any]]:
        """A JSON-ready form, which `from_json` reads."""
        return {
            "names": list(self.names),
            "values": list(self.values),
            "ignored": list(self.ignored),
        }

    def __len__(self) -> int:
        return len(self.names)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """One RGB colour per class, each channel in 0 to 255; the same class id, the same colour.

        Past the seven hand-picked colours, hues are spread by the golden ratio's conjugate.
        """
        colours = list(_OKABE_ITO[: len(self)])
        for i in range(len(colours), len(self)):
            hue = (i * 0.618034) % 1.0
            red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (i % 2), 0.95 - 0.25 * (i % 3))
            colours.append((round(255 * red), round(255 * green), round(255 * blue)))
        return tuple(colours)

    def to_class_ids(self, mask: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        """Turn the values of a mask file into class ids.

        Args:
            mask: uint8 or uint16 [H, W], values as in the file.

        Returns:
            uint8 [H, W], class ids, `IGNORED` where the value is one to ignore.

        Raises:
            InputError: a value that no class claims; the message has the value and how many
                pixels hold it, and the caller adds which file it is.
        """
        table = np.full(MAX_VALUE + 1, -1, dtype=np.int16)
        table[list(self.values)] = np.arange(len(self))
        table[list(self.ignored)] = IGNORED
        ids = table[mask]
        unclaimed = mask[ids < 0]
        if unclaimed.size:
            value = int(unclaimed[0])
            claimed = " ".join(f"{n}={v}" for n, v in zip(self.names, self.values, strict=True))
            raise InputError(
                f"has the value {value} in {np.count_nonzero(mask == value)} pixels, which none of "
                f"--classes {_shorten(claimed)} claims: add a class for it, or --ignore-values "
                f"{value}"
            )
        return ids.astype(np.uint8)


def _refuse_repeated(what: str, items: Sequence[str | int]) -> None:
    repeated = [item for item in dict.fromkeys(items) if items.count(item) > 1]
    if repeated:
        raise InputError(f"--classes and --ignore-values: the {what} {repeated[0]!r} stands twice")


def _shorten(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"

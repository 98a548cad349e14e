"""Pictures for people: coloured masks, masks over images, and sheets of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from segray.pixels.labels import IGNORED, Labels

_GAP = 8  # pixels between the tiles of a sheet
_HEADER = 18
_MAX_CAPTION = 280  # pixels
_IGNORED_GREY = (128, 128, 128)


def colour_mask(mask: npt.NDArray[np.uint8], labels: Labels) -> npt.NDArray[np.uint8]:
    """Convert class ids to colours.

    Args:
        mask: uint8 [H, W] of class ids; `IGNORED` becomes grey.
        labels: the classes and their colours.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    table = np.full((IGNORED + 1, 3), _IGNORED_GREY, dtype=np.uint8)
    table[: len(labels)] = labels.palette
    return table[mask]


def draw_sheet(
    rows: Sequence[Sequence[npt.NDArray[np.uint8]]],
    titles: Sequence[str],
    labels: Labels,
    captions: Sequence[str] = (),
) -> Image.Image:
    """Arrange pictures in a table, with a title above each column and a legend below.

    Args:
        rows: rows of equally many pictures, each uint8 [h, w, 3], all of one size.
        titles: the title of each column.
        labels: the classes, for the legend.
        captions: the caption of each row, to its right, or none at all. A caption may have several
            lines; a line that is too long is shortened in the middle.
    """
    height, width = rows[0][0].shape[:2]
    step_x, step_y = width + _GAP, height + _GAP
    left = _GAP + step_x * len(titles)  # the left edge of the captions
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    fitted = ["\n".join(_fit(ruler, line) for line in text.split("\n")) for text in captions]
    beside = max((ruler.multiline_textbbox((0, 0), text)[2] for text in fitted), default=-_GAP)
    sheet_width = left + round(beside) + _GAP
    legend = _lay_out_legend(ruler, sheet_width, labels)
    below = _HEADER + step_y * len(rows)
    lines = legend[-1].line + 1
    sheet = Image.new("RGB", (sheet_width, below + _GAP + _HEADER * lines), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * step_x, 4), title, fill="black")
    for line, row in enumerate(rows):
        for column, picture in enumerate(row):
            corner = (_GAP + column * step_x, _HEADER + line * step_y)
            sheet.paste(Image.fromarray(picture), corner)
    for line, text in enumerate(fitted):
        draw.text((left, _HEADER + line * step_y), text, fill="black")
    for entry, colour in zip(legend, labels.palette, strict=True):
        x, y = entry.x, below + _GAP - 2 + _HEADER * entry.line
        draw.rectangle((x, y + 1, x + 10, y + 11), fill=colour, outline="black")
        draw.text((x + 14, y), entry.name, fill="black")
    return sheet


def _fit(draw: ImageDraw.ImageDraw, line: str, room: float = _MAX_CAPTION) -> str:
    """Shorten a line in the middle if it is longer than the room for it, in pixels."""
    kept, shown = len(line), line
    while kept and draw.textlength(shown) > room:
        kept -= 1
        shown = f"{line[: (kept + 1) // 2]}…{line[len(line) - kept // 2 :]}"
    return shown


@dataclass(frozen=True)
class _Entry:
    """An entry of a legend: its place, its line, and the name of the class, shortened to fit."""

    x: float
    line: int
    name: str


def _lay_out_legend(draw: ImageDraw.ImageDraw, width: int, labels: Labels) -> list[_Entry]:
    """Arrange the classes in lines of a sheet's width."""
    entries: list[_Entry] = []
    x, line = float(_GAP), 0
    for name in labels.names:
        shown = _fit(draw, name, width - 2 * _GAP - 14)
        needed = 22 + draw.textlength(shown)
        if entries and x + needed > width:
            x, line = float(_GAP), line + 1
        entries.append(_Entry(x, line, shown))
        x += needed + 6
    return entries

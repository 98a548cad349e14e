"""Pictures of an evaluation: the confusion matrix, and a sheet of the worst images."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

from segray.data.labelled import DEFAULT_READING, Reading, read_pair
from segray.data.pairs import Pair
from segray.errors import InputError
from segray.evaluation.figure import encode_figure
from segray.evaluation.stages import scale_truth, unpack
from segray.model.bundle import Bundle
from segray.pixels.labels import Labels
from segray.pixels.metrics import Confusion
from segray.pixels.pictures import colour_mask, draw_sheet

# The side of a cell, by the greatest number of classes for which it is used. With more classes the
# cells are smaller and have no numbers; the picture would become too large.
_CELL_INCHES = {8: 1.0, 24: 0.75}
_BARE_CELL_INCHES = 0.14
_NAME_LETTERS = 24
_DPI = 100

# The least and the greatest longer side of a picture on the sheet, in pixels.
_TILE_SIDES = (128, 256)
_CAPTION_CLASSES = 6


@dataclass(frozen=True)
class Worst:
    """An image with a low mean IoU.

    Attributes:
        pair: its files.
        counted: its row in the result of `segray.evaluation.stages.count`.
    """

    pair: Pair
    counted: dict[str, Any]


def draw_confusion(confusion: Confusion, labels: Labels) -> bytes:
    """Draw a confusion matrix, normalised by the pixels of each true class.

    With up to 24 classes each cell shows its share and its number of pixels; with more, a shade
    only.

    Args:
        confusion: int64 [C, C], rows = ground truth, columns = prediction.
        labels: the names of the classes.

    Returns:
        The content of a PNG file.
    """
    cell = next((c for most, c in _CELL_INCHES.items() if len(labels) <= most), _BARE_CELL_INCHES)
    numbered = cell > _BARE_CELL_INCHES
    names = [n if len(n) <= _NAME_LETTERS else f"{n[: _NAME_LETTERS - 1]}…" for n in labels.names]
    longest = max(len(name) for name in names)
    side = cell * len(labels) + 1.2 + 0.09 * longest
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.85")  # the colour of rows of classes without pixels
    true = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, true, out=np.full(confusion.shape, np.nan), where=true > 0)
    # Without numbers, small shares must be visible by their shade.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(1 if numbered else 0.5, 0, 1))
    axes.set_xticks(range(len(names)), names, rotation=0 if longest < 11 * cell else 90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=10 if numbered else 7)
    title = "share and number of its pixels" if numbered else "share of its pixels"
    axes.set(xlabel="predicted", ylabel="true", title=f"of each true class: {title}")
    figure.colorbar(image, shrink=0.8, aspect=15 * side / 4, format=lambda v, _: f"{v:.0%}")
    if numbered:
        _number_cells(axes, confusion, shares)
    return encode_figure(figure, _DPI)


def _number_cells(axes: Any, confusion: Confusion, shares: npt.NDArray[np.float64]) -> None:
    for (row, column), pixels in np.ndenumerate(confusion):
        share = shares[row, column]
        if np.isnan(share):
            text, colour = "-", "black"
        else:
            text = f"{share:.1%}\n{_short(int(pixels))}"
            colour = "white" if share > 0.5 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)


def _short(pixels: int) -> str:
    """Format a number of pixels in at most five characters, such as 12.3M."""
    # A number that rounds to 1000 takes the next unit.
    power = next(power for power in range(7) if pixels < 999.5 * 1000**power)
    return f"{pixels / 1000**power:.3g}{'kMGTPE'[power - 1 : power] if power else ''}"


def draw_worst(
    worst: Sequence[Worst], bundle: Bundle, reading: Reading = DEFAULT_READING
) -> bytes | None:
    """Draw image, ground truth and prediction of some images, at the network's resolution.

    They have the proportions of the image, except that a narrow strip is drawn wider. The files are
    read again, because their pixels are not kept; an image that is gone is left out.

    Args:
        worst: the images, in the order of their rows.
        bundle: the model that made the predictions.
        reading: the settings with which the files are read.

    Returns:
        The content of a PNG file; None if no image is left.
    """
    rows, captions = [], []
    for one in worst:
        try:
            rows.append(_draw_row(one, bundle, reading))
        except InputError:
            continue
        captions.append(_caption(one, bundle.labels))
    if not rows:
        return None
    buffer = io.BytesIO()
    titles = ("image", "truth", "prediction")
    draw_sheet(rows, titles, bundle.labels, captions).save(buffer, "PNG")
    return buffer.getvalue()


def _draw_row(worst: Worst, bundle: Bundle, reading: Reading) -> list[npt.NDArray[np.uint8]]:
    labels, frame = bundle.labels, bundle.frame
    labelled = read_pair(worst.pair, labels, frame, reading)
    height, width = labelled.picture.height, labelled.picture.width
    truth = scale_truth(labelled.class_ids, frame)
    prediction = unpack(worst.counted["prediction"], *truth.shape)
    # All pictures of a sheet are of one size.
    seen = _TILE_SIDES[1] if frame.fit == "tile" else max(frame.shape)
    side = min(max(seen, _TILE_SIDES[0]), _TILE_SIDES[1])
    tile = _tile_size(width, height, side)
    return [
        _letterbox(labelled.picture.content, tile, Image.Resampling.BILINEAR),
        _letterbox(colour_mask(truth, labels), tile, Image.Resampling.NEAREST),
        _letterbox(colour_mask(prediction, labels), tile, Image.Resampling.NEAREST),
    ]


def _tile_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Return width and height for a longer side of `side`; the shorter is at least a quarter."""
    scale = side / max(width, height)
    return max(side // 4, round(width * scale)), max(side // 4, round(height * scale))


def _letterbox(
    picture: npt.NDArray[np.uint8], size: tuple[int, int], method: Image.Resampling
) -> npt.NDArray[np.uint8]:
    """Scale a picture to a width and height, and centre it in a white square."""
    square = Image.new("RGB", (max(size), max(size)), "white")
    corner = (square.width - size[0]) // 2, (square.height - size[1]) // 2
    square.paste(Image.fromarray(picture).resize(size, method), corner)
    return np.asarray(square)


def _caption(worst: Worst, labels: Labels) -> str:
    counted = worst.counted
    lines = [worst.pair.key, f"mean IoU {counted['mean_iou']:.3f}"]
    of_class = [(name, counted[f"iou_{name}"]) for name in labels.names]
    occurring = [(name, iou) for name, iou in of_class if iou is not None]
    lines += [f"  {name} {iou:.3f}" for name, iou in occurring[:_CAPTION_CLASSES]]
    return "\n".join(lines + ["  …"] * (len(occurring) > _CAPTION_CLASSES))

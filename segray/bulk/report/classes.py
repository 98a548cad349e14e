"""The classes in a report: a table, and two histograms for each class."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from segray.bulk.histograms import BINS, ClassHistograms
from segray.page.charts import histogram, share_bar, swatch
from segray.page.markup import (
    Element,
    count_images,
    format_confidence,
    format_count,
    format_share,
    tag,
)
from segray.pixels.labels import Labels

_BARS = 40  # of a histogram; divides BINS
_PERCENT, _UNIT = ("0%", "50%", "100%"), ("0", "0.5", "1")
_OPEN_CLASSES = 12  # whose histograms are seen before they are asked for


def draw_classes(
    histograms: ClassHistograms,
    labels: Labels,
    order: Sequence[int],
    images: int,
    expected_iou: Mapping[str, float | None],
) -> list[Element]:
    """Rows of the table of classes."""
    total = max(1, int(histograms.pixels.sum()))
    longest = max(1, int(histograms.pixels.max(initial=0)))
    palette = labels.palette
    rows = []
    for i in order:
        pixels, colour = int(histograms.pixels[i]), palette[i]
        share = format_share(pixels / total)
        rows.append(
            tag(
                "tr",
                tag("th", swatch(colour), labels.names[i], scope="row"),
                tag("td", share_bar([pixels / longest], [colour], share), class_="wide"),
                tag("td", share),
                tag("td", format_count(pixels)),
                tag("td", format_share(int(histograms.images[i]) / max(1, images))),
                tag("td", format_confidence(histograms.confidence[i])),
                tag("td", format_confidence(expected_iou.get(labels.names[i]))),
            )
        )
    return rows


def draw_distributions(
    histograms: ClassHistograms, labels: Labels, order: Sequence[int], images: int
) -> list[Element]:
    """Two histograms for each class; of many classes, most folded away."""
    drawn = [_draw_distribution(histograms, labels, i, images) for i in order]
    first, others = drawn[:_OPEN_CLASSES], drawn[_OPEN_CLASSES:]
    if not others:
        return first
    return [*first, tag("details", tag("summary", f"{len(others)} more classes"), *others)]


def _draw_distribution(
    histograms: ClassHistograms, labels: Labels, class_id: int, images: int
) -> Element:
    name, colour = labels.names[class_id], labels.palette[class_id]
    there, absent = int(histograms.images[class_id]), images - int(histograms.images[class_id])
    heading = tag("h3", swatch(colour), name)
    if not there:
        return tag("article", heading, tag("p", "in no image"), class_="distribution")
    where = f"left out: {count_images(absent)} with none of it" if absent else None
    charts = [
        tag(
            "figure",
            tag(
                "figcaption",
                tag("b", title),
                f" half of the images: {in_words(low)} to {in_words(high)}, "
                f"median {in_words(middle)}",
            ),
            histogram(bins.reshape(_BARS, -1).sum(axis=1), colour, title, in_words, axis),
        )
        for title, bins, in_words, axis in (
            (f"share of {name}", histograms.shares[class_id], format_share, _PERCENT),
            (f"confidence in {name}", histograms.confidences[class_id], format_confidence, _UNIT),
        )
        for low, middle, high in [_quartiles(bins)]
    ]
    return tag(
        "article",
        heading,
        tag("p", where) if where else None,
        tag("div", *charts, class_="pair"),
        class_="distribution",
    )


def _quartiles(bins: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """The values below which a quarter, half and three quarters lie, to a bin's width."""
    reached = np.cumsum(bins)
    places = [int(np.searchsorted(reached, part * reached[-1])) for part in (0.25, 0.5, 0.75)]
    # Stretched by a hair, so that the last bin stands for 1.
    low, middle, high = (place / (BINS - 1) for place in places)
    return low, middle, high

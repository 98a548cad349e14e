"""The regions in a report: a table of the classes, and a histogram of sizes for each of them."""

from collections.abc import Sequence

import numpy as np

from segray.bulk.regions import RegionSizes
from segray.page.charts import histogram, share_bar, swatch
from segray.page.markup import (
    NONE,
    Element,
    count_regions,
    format_count,
    format_share,
    tag,
)
from segray.pixels.labels import Labels

_OPEN_CLASSES = 12  # whose histograms are seen before they are asked for
_HEADINGS = ("regions", "mean size", "in images")


def draw_regions(
    sizes: RegionSizes | None,
    labels: Labels,
    order: Sequence[int],
    images: int,
    min_area: int,
) -> list[Element]:
    """The section of the page; nothing if regions were not wanted."""
    if sizes is None:
        return []
    drawn = [_draw_histogram(sizes, labels, i) for i in order if sizes.regions[i]]
    first, others = drawn[:_OPEN_CLASSES], drawn[_OPEN_CLASSES:]
    more = tag("summary", f"{len(others)} more classes")
    note = (
        "The connected parts of a class in an image, of at least "
        f"{format_count(min_area)} pixel{'s' * (min_area != 1)} of the mask. Each bar of a "
        "histogram stands for up to twice the size of the one before."
    )
    return [
        tag(
            "section",
            tag("h2", "Regions", id="regions"),
            tag("p", note, class_="soft"),
            tag("div", _draw_table(sizes, labels, order, images), class_="scroll"),
            tag("div", *first, class_="pair sizes"),
            tag("details", more, tag("div", *others, class_="pair sizes")) if others else None,
            aria_labelledby="regions",
        )
    ]


def _draw_table(sizes: RegionSizes, labels: Labels, order: Sequence[int], images: int) -> Element:
    most = max(1, int(sizes.regions.max(initial=0)))
    rows = []
    for i in order:
        count, colour = int(sizes.regions[i]), labels.palette[i]
        mean = f"{format_count(sizes.pixels[i] / count)} px" if count else NONE
        rows.append(
            tag(
                "tr",
                tag("th", swatch(colour), labels.names[i], scope="row"),
                tag("td", share_bar([count / most], [colour], count_regions(count)), class_="wide"),
                tag("td", format_count(count)),
                tag("td", mean),
                tag("td", format_share(int(sizes.images[i]) / max(1, images))),
            )
        )
    headings = [tag("th", heading, scope="col") for heading in _HEADINGS]
    head = tag("tr", tag("th", "class", scope="col"), tag("td", class_="wide"), *headings)
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="shares")


def _draw_histogram(sizes: RegionSizes, labels: Labels, class_id: int) -> Element:
    """The regions of a class by their size."""
    # One axis for all classes, as far as any has regions.
    there = np.flatnonzero(sizes.areas.any(axis=0)).tolist()
    low, high = there[0], there[-1] + 1
    counts = sizes.areas[class_id, low:high]

    def in_words(place: float) -> str:
        return f"{format_count(2 ** (low + round(place * len(counts))))} px"

    name, colour = labels.names[class_id], labels.palette[class_id]
    axis = (in_words(0), in_words(1))
    return tag(
        "figure",
        tag("figcaption", tag("b", f"size of {name}"), f" {count_regions(int(counts.sum()))}"),
        histogram(counts, colour, f"size of {name}", in_words, axis, count_regions),
    )

"""The report of a segmentation: one page that needs no network, for a person to look at.

The page holds its style, its script and all pictures, and forbids itself every connection. It
counts all images; its gallery shows a few of them.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from segray.bulk.census import Census, ErrorKind
from segray.bulk.charts import curve, histogram, share_bar, swatch
from segray.bulk.gallery import Shot, draw_tiles, take_shots
from segray.bulk.histograms import BINS, ClassHistograms
from segray.bulk.markup import (
    NONE,
    Element,
    count_images,
    format_confidence,
    format_count,
    format_rate,
    format_seconds,
    format_share,
    tag,
    to_html,
    uri_tag,
)
from segray.bulk.progress import Moment
from segray.pixels.labels import Labels
from segray.storage.files import write_bytes
from segray.storage.uri import join_uri

_BARS = 40  # of a histogram; divides BINS
_PERCENT, _UNIT = ("0%", "50%", "100%"), ("0", "0.5", "1")
_STEPS = 80  # of a curve over time, at most
_OPEN_CLASSES = 12  # whose histograms are seen before they are asked for
_KINDS = 100  # of errors in the table
_MESSAGE_LETTERS = 500

# What the record counts as left out of the listing.
_LEFT_OUT = {
    "other": "with another suffix",
    "excluded": "by --include and --exclude",
    "hidden": "hidden",
    "placeholders": "placeholders of folders",
    "unreadable": "that cannot be read",
}


def write_report(
    output: str,
    labels: Labels,
    census: Census,
    record: dict[str, Any],
    timeline: Sequence[Moment],
) -> None:
    """Write ``OUTPUT/report.html``.

    No image is fetched: the gallery shows the sample of the census with the pictures that were
    kept, or if there are none, the masks alone.

    Args:
        output: absolute URI of a segmentation.
        labels: the classes of its model.
        census: of the output.
        record: the content of its run.json.
        timeline: moments of the run in their order, or none.

    Raises:
        InputError: the segmentation cannot be read, or the page cannot be written.
    """
    shots = take_shots(census.sample, census.pictures, labels)
    histograms = census.histograms
    order = np.argsort(-histograms.pixels, kind="stable").tolist()
    configuration = record.get("configuration") or {}
    source = str(configuration.get("images") or configuration.get("manifest") or "sample images")
    parts = {
        "title": [tag("title", f"Segmentation of {source}")],
        "source": [uri_tag(source)],
        "figures": _draw_figures(census, record, timeline),
        "origin": _draw_origin(source, output, record),
        "classes": _draw_classes(histograms, labels, order, census.segmented),
        "distributions": _draw_distributions(histograms, labels, order, census.segmented),
        "throughput": _draw_throughput(timeline),
        "errors": _draw_errors(census.errors),
        "options": [tag("option", labels.names[i], value=i) for i in order],
        "sampled": [_describe_sample(shots, census.segmented)],
        "tiles": list(draw_tiles(shots, labels)),
        "settings": _draw_settings(record),
    }
    page = _fill({name: to_html(*elements) for name, elements in parts.items()})
    write_bytes(join_uri(output, "report.html"), page.encode("utf-8", "replace"))


def _fill(parts: dict[str, str]) -> str:
    """The page with these parts in their places; only its own style and script may take effect."""
    page = files("segray.bulk").joinpath("report_page.html").read_text("utf-8")
    hashes = {}
    for name in ("style", "script"):
        content = page.partition(f"<{name}>")[2].partition(f"</{name}>")[0]
        digest = hashlib.sha256(content.encode()).digest()
        hashes[f"{name}_hash"] = f"sha256-{base64.b64encode(digest).decode()}"
    return Template(page).substitute(parts, **hashes)


def _draw_figures(
    census: Census, record: dict[str, Any], timeline: Sequence[Moment]
) -> list[Element]:
    """The headline: a list of terms and what they are."""
    seconds, rate = record.get("seconds"), record.get("images_per_second")
    processed = record.get("counts", {}).get("processed", 0)
    megabytes = timeline[-1].bytes / 1e6 if timeline else 0.0
    open_ = census.listed - census.segmented - census.failed
    failed = format_share(census.failed / max(1, census.listed))
    figures = [
        ("segmented", format_count(census.segmented), f"of {count_images(census.listed)}"),
        ("failed", format_count(census.failed), f"{failed} of them"),
    ]
    if open_ > 0:
        figures.append(("left", format_count(open_), "not worked on yet"))
    if processed and seconds:
        figures += [
            ("images/s", format_rate(rate or processed / seconds), "start included"),
            ("MB/s", format_rate(megabytes / seconds), f"{_format_megabytes(megabytes)} read"),
            ("duration", format_seconds(seconds), f"for {count_images(processed)}"),
        ]
    else:
        figures.append(("in this run", "0", "images were left to do"))
    return [
        tag("div", tag("dt", term), tag("dd", tag("strong", value), tag("small", more)))
        for term, value, more in figures
    ]


def _format_megabytes(megabytes: float) -> str:
    for unit, size in (("TB", 1e6), ("GB", 1e3)):
        if megabytes >= size:
            return f"{megabytes / size:.3g} {unit}"
    return f"{megabytes:.3g} MB" if megabytes < 1000 else f"{megabytes:.0f} MB"


def _draw_origin(source: str, output: str, record: dict[str, Any]) -> list[Element]:
    items = {
        "Images": source,
        "Output": output,
        "Model": record.get("configuration", {}).get("model"),
        "Digest": record.get("model"),
        "Engine": record.get("engine"),
        "Left out": _describe_left_out(record.get("counts", {}).get("left_out") or {}),
    }
    return [
        tag("div", tag("dt", term), tag("dd", uri_tag(str(value))))
        for term, value in items.items()
        if value is not None
    ]


def _describe_left_out(counts: dict[str, int]) -> str | None:
    """The files that were found and are no images to segment; None if there were none."""
    parts = [
        f"{format_count(counts[key])} {of}" for key, of in _LEFT_OUT.items() if counts.get(key)
    ]
    return ", ".join(parts) or None


def _draw_classes(
    histograms: ClassHistograms, labels: Labels, order: Sequence[int], images: int
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
            )
        )
    return rows


def _draw_distributions(
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


def _draw_throughput(timeline: Sequence[Moment]) -> list[Element]:
    """Two curves over the time of the run."""
    done = np.array(
        [[0, 0, 0]] + [[m.seconds, m.segmented + m.failed, m.bytes / 1e6] for m in timeline]
    ).T
    if not done[0, -1] or not done[1, -1]:
        return [tag("p", "This run had no image left to do.")]
    # Images are counted many at a time, as they are written. A moment that found no more of them
    # says nothing of the work in between: the rate is that from one count to the next.
    counted = np.diff(done[1], prepend=-1) > 0
    counted[-1] = True
    seconds, images, megabytes = done[:, counted]
    times = np.linspace(0, seconds[-1], min(len(seconds) - 1, _STEPS) + 1)
    spans = [format_seconds(time) if time else "0 s" for time in times.tolist()]
    drawn = []
    for unit, total in (("images/s", images), ("MB/s", megabytes)):
        rates = np.diff(np.interp(times, seconds, total)) / np.diff(times)
        mean, top = total[-1] / seconds[-1], rates.max()
        caption = f" mean {format_rate(mean)}, highest {format_rate(top)}"
        drawn.append(
            tag(
                "figure",
                tag("figcaption", tag("b", unit), caption),
                curve(rates, unit, spans, f"{unit} over time:{caption}"),
            )
        )
    return [tag("div", *drawn, class_="pair")]


def _draw_errors(errors: Sequence[ErrorKind]) -> list[Element]:
    if not errors:
        return [tag("p", "No image failed.")]
    drawn = [_draw_error(kind) for kind in errors[:_KINDS]]
    rest = errors[_KINDS:]
    if rest:
        count = count_images(sum(kind.count for kind in rest))
        drawn.append(tag("p", f"And {len(rest)} more kinds, {count}: see errors/*.parquet"))
    return drawn


def _draw_error(kind: ErrorKind) -> Element:
    examples = [
        tag("li", uri_tag(uri, class_="uri"), tag("span", _shorten(message), class_="message"))
        for uri, message in kind.examples
    ]
    shown = f"{len(examples)} of {format_count(kind.count)}" if len(examples) < kind.count else None
    return tag(
        "details",
        tag(
            "summary",
            tag("b", kind.error or "no kind given"),
            tag("span", f"in {kind.stage}" if kind.stage else "", class_="stage"),
            tag("span", format_count(kind.count), class_="count"),
        ),
        tag("ul", *examples),
        tag("p", shown) if shown else None,
        class_="failures",
        open="open",
    )


def _shorten(text: str) -> str:
    return text if len(text) <= _MESSAGE_LETTERS else text[: _MESSAGE_LETTERS - 1] + "…"


def _describe_sample(shots: Sequence[Shot], segmented: int) -> Element:
    shown = len(shots)
    if not shown:
        return tag("span", "No images.")
    text = f"All of {count_images(segmented)}."
    if shown < segmented:
        text = (
            f"A sample: {shown} of {count_images(segmented)}. Some are drawn at random over all "
            "of them, some are among those of which the model is least sure, and some among those "
            "with the most or the least of a class."
        )
    if not any(shot.image for shot in shots):
        text += " The pictures of the images are not there any more: these are the masks."
    return tag("span", text)


def _draw_settings(record: dict[str, Any]) -> list[Element]:
    """A table of the flags and one of the versions."""
    return [
        tag("table", tag("caption", title), *_draw_pairs(record.get(key) or {}))
        for title, key in (("Configuration", "configuration"), ("Versions", "versions"))
    ]


def _draw_pairs(items: dict[str, Any]) -> Iterator[Element]:
    for name, value in items.items():
        parts = value if isinstance(value, list | tuple) else [] if value is None else [value]
        text = ", ".join(map(str, parts)) or NONE
        yield tag("tr", tag("th", name.replace("_", "-"), scope="row"), tag("td", text))

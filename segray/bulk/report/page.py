"""The report of a segmentation: one page that needs no network, for a person to look at.

The page holds its style, its script and all pictures, and forbids itself every connection. It
counts all images; its gallery shows a few of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from segray.bulk.census import Census
from segray.bulk.progress import Moment
from segray.bulk.report.classes import draw_classes, draw_distributions
from segray.bulk.report.drift import draw_drift
from segray.bulk.report.errors import draw_errors
from segray.bulk.report.gallery import Shot, draw_tiles, take_pictures, take_shots
from segray.bulk.report.regions import draw_regions
from segray.bulk.report.throughput import draw_throughput
from segray.page.markup import (
    NONE,
    Element,
    count_images,
    format_confidence,
    format_count,
    format_rate,
    format_seconds,
    format_share,
    tag,
    uri_tag,
)
from segray.page.template import fill_page
from segray.pixels.labels import Labels
from segray.storage.files import write_bytes
from segray.storage.uri import join_uri

# Names of the record's counts of passed-over files, in words.
_LEFT_OUT = {
    "other": "with another suffix",
    "excluded": "by --include and --exclude",
    "hidden": "hidden",
    "placeholders": "placeholders of folders",
    "unreadable": "that are no files, or have names that are not UTF-8",
    "unseen": "that could not be looked at",
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
        census: the counts of the output.
        record: the content of its run.json.
        timeline: moments of the run in their order, or none.

    Raises:
        InputError: the segmentation cannot be read, or the page cannot be written.
    """
    shots = take_shots(census.sample, census.pictures, labels)
    unlike = take_pictures(census.unlike, census.pictures)
    histograms = census.histograms
    order = np.argsort(-histograms.pixels, kind="stable").tolist()
    configuration = record.get("configuration") or {}
    expected = record.get("expected_iou") or {}
    source = str(configuration.get("images") or configuration.get("manifest") or "sample images")
    parts = {
        "title": [tag("title", f"Segmentation of {source}")],
        "source": [uri_tag(source)],
        "figures": _draw_figures(census, record, timeline),
        "origin": _draw_origin(source, output, record),
        "classes": draw_classes(histograms, labels, order, census.segmented, expected),
        "distributions": draw_distributions(histograms, labels, order, census.segmented),
        "regions": draw_regions(
            census.regions, labels, order, census.segmented, configuration.get("min_area", 1)
        ),
        "drift": draw_drift(census.drift, unlike),
        "throughput": draw_throughput(timeline),
        "errors": draw_errors(census.errors),
        "options": [tag("option", labels.names[i], value=i) for i in order],
        "sampled": [_describe_sample(shots, census.segmented)],
        "tiles": list(draw_tiles(shots, labels)),
        "settings": _draw_settings(record),
    }
    write_bytes(
        join_uri(output, "report.html"), fill_page("segray.bulk.report", "page.html", parts)
    )


def _draw_figures(
    census: Census, record: dict[str, Any], timeline: Sequence[Moment]
) -> list[Element]:
    """The headline: a list of terms and what they are."""
    seconds, rate = record.get("seconds"), record.get("images_per_second")
    processed = record.get("counts", {}).get("processed", 0)
    megabytes = timeline[-1].bytes / 1e6 if timeline else 0.0
    failed = format_share(census.failed / max(1, census.listed))
    figures = [
        ("segmented", format_count(census.segmented), f"of {count_images(census.listed)}"),
        ("failed", format_count(census.failed), f"{failed} of them"),
    ]
    if (expected := record.get("expected_mean_iou")) is not None:
        figures.append(("expected mean IoU", format_confidence(expected), "without a label"))
    if census.drift:
        moved = f"{len(census.drift.moved)} of {len(census.drift.features)} features moved"
        distance = census.drift.distance
        figures.append(
            ("drift", NONE, "too few images to tell")
            if distance is None
            else ("drift", f"{distance:.2f}", moved)
        )
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


def _describe_sample(shots: Sequence[Shot], segmented: int) -> Element:
    shown = len(shots)
    if not shown:
        return tag("span", "No images.")
    text = f"All of {count_images(segmented)}."
    if shown < segmented:
        text = (
            f"A sample: {shown} of {count_images(segmented)}. Some are drawn at random over all "
            "of them, some are among those with the lowest expected IoU, and some among those "
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

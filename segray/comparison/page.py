"""The page of a comparison: how far two segmentations agree, and the images that changed most."""

import base64
import io
import json
import posixpath
from collections.abc import Iterator

import numpy as np
from PIL import Image

from segray.comparison.changes import SIDE, Change
from segray.comparison.comparison import Comparison
from segray.page.charts import share_bar, swatch
from segray.page.markup import (
    NONE,
    Element,
    format_confidence,
    format_count,
    format_share,
    tag,
    uri_tag,
)
from segray.page.template import fill_page
from segray.pixels.decoding import DecodeError
from segray.pixels.limits import Memory
from segray.pixels.masks import encode_mask
from segray.pixels.thumbnails import read_small
from segray.pixels.wide import ValueRange
from segray.results.segmentation import Listed, read_listed
from segray.storage.failures import FetchError
from segray.storage.files import write_bytes
from segray.storage.objects import fetched
from segray.storage.parallel import map_ahead

# Images that are fetched at once, and the memory that their files take.
_REQUESTS, _FETCHED_BYTES = 16, 1 << 27
# The moves between two classes that are listed.
_MOVES = 12
# Pixels that stayed, and pixels that changed, in the picture of the change.
_CHANGE = ((24, 28, 33), (255, 214, 10))


def write_page(uri: str, comparison: Comparison) -> None:
    """Write the page; the images that changed most are fetched for it.

    Raises:
        InputError: it cannot be written.
    """
    uris = [change.uri for change in comparison.most]
    folder = posixpath.commonprefix(uris).rpartition("/")[0] + "/"

    ids = np.array(sorted(change.id for change in comparison.most), dtype=np.int64)
    listed = read_listed(comparison.after, ids)
    memory = Memory(_FETCHED_BYTES)

    def draw(change: Change) -> Element:
        return _draw_tile(change, comparison, listed, folder, memory)

    parts = {
        "title": [tag("title", "Comparison of two segmentations")],
        "figures": list(_draw_figures(comparison)),
        "origin": list(_draw_origin(comparison)),
        "settings": list(_draw_settings(comparison)),
        "classes": list(_draw_classes(comparison)),
        "moves": list(_draw_moves(comparison)),
        "tiles": list(map_ahead(draw, comparison.most, _REQUESTS)),
    }
    write_bytes(uri, fill_page("segray.comparison", "page.html", parts))


def _draw_figures(comparison: Comparison) -> Iterator[Element]:
    agreement = [value for value in comparison.agreement.values() if value is not None]
    figures = [
        ("changed", format_share(comparison.changed), "of all pixels"),
        ("agreement", f"{np.mean(agreement):.3f}" if agreement else NONE, "mean IoU of the two"),
        (
            "expected IoU",
            format_confidence(comparison.after.expected_mean_iou),
            f"before: {format_confidence(comparison.before.expected_mean_iou)}",
        ),
        ("compared", format_count(comparison.compared), "images of both"),
        ("only before", format_count(comparison.alone[0]), "images"),
        ("only after", format_count(comparison.alone[1]), "images"),
    ]
    if comparison.skipped:
        figures.append(("left out", format_count(len(comparison.skipped)), "damaged masks"))
    for term, value, more in figures:
        yield tag("div", tag("dt", term), tag("dd", tag("strong", value), tag("small", more)))


def _draw_origin(comparison: Comparison) -> Iterator[Element]:
    for term, side in (("Before", comparison.before), ("After", comparison.after)):
        yield tag("div", tag("dt", term), tag("dd", uri_tag(side.uri), f" (model {side.model})"))


def _draw_settings(comparison: Comparison) -> Iterator[Element]:
    """The settings that differ, as rows of a table."""
    for name, values in comparison.settings.items():
        cells = (tag("td", tag("code", json.dumps(value))) for value in values)
        yield tag("tr", tag("th", name.replace("_", " "), scope="row"), *cells)
    if not comparison.settings:
        yield tag("tr", tag("td", "All settings are the same.", colspan="3"))


def _draw_classes(comparison: Comparison) -> Iterator[Element]:
    """Rows of the table of classes."""
    confusion, palette = comparison.confusion, comparison.before.labels.palette
    before, after = confusion.sum(axis=1), confusion.sum(axis=0)
    total = max(1, int(confusion.sum()))
    for i in np.argsort(-before, kind="stable").tolist():
        name = comparison.before.classes[i]
        agreement = comparison.agreement[name]
        word = NONE if agreement is None else f"{agreement:.3f}"
        yield tag(
            "tr",
            tag("th", swatch(palette[i]), name, scope="row"),
            tag("td", share_bar([agreement or 0.0], [palette[i]], word), class_="wide"),
            tag("td", word),
            tag("td", format_share(before[i] / total)),
            tag("td", format_share(after[i] / total)),
            tag("td", format_confidence(comparison.before.expected_iou.get(name))),
            tag("td", format_confidence(comparison.after.expected_iou.get(name))),
        )


def _draw_moves(comparison: Comparison) -> Iterator[Element]:
    """The most frequent changes from one class to another, as rows of a table."""
    moved = comparison.confusion.copy()
    np.fill_diagonal(moved, 0)
    total, names = max(1, int(comparison.confusion.sum())), comparison.before.classes
    if not moved.any():
        yield tag("tr", tag("td", "No pixel changed.", colspan="3"))
    for place in np.argsort(-moved, axis=None, kind="stable")[:_MOVES].tolist():
        i, j = divmod(place, len(names))
        if moved[i, j]:
            yield tag(
                "tr",
                tag("th", f"{names[i]} to {names[j]}", scope="row"),
                tag("td", format_share(moved[i, j] / total)),
                tag("td", format_count(int(moved[i, j]))),
            )


def _draw_tile(
    change: Change, comparison: Comparison, listed: Listed, folder: str, memory: Memory
) -> Element:
    """An image with both of its masks, and where they differ."""
    name, palette = change.uri.removeprefix(folder), comparison.before.labels.palette
    before, after = change.before, change.after
    pictures = {
        "image": _fetch_picture(change, listed, comparison.before.value_range, memory),
        "before": encode_mask(before, palette),
        "after": encode_mask(after, palette),
        "changed": encode_mask((before != after).astype(np.uint8), _CHANGE),
    }
    return tag(
        "li",
        tag("h3", uri_tag(name), title=change.uri),
        tag("p", f"{format_share(change.changed)} of its pixels changed", class_="size"),
        tag(
            "div",
            *(
                tag("figure", _picture(content, f"{what}: {name}"), tag("figcaption", what))
                for what, content in pictures.items()
                if content
            ),
            class_="four",
        ),
        class_="change",
    )


def _fetch_picture(
    change: Change, listed: Listed, value_range: ValueRange | None, memory: Memory
) -> bytes | None:
    """Return a small JPEG file of an image; None if it cannot be read, or has changed since."""
    try:
        [size], [etag] = listed.find(np.array([change.id]))
        with fetched(memory, change.uri, size, etag) as content:
            pixels = read_small(content, change.width, change.height, SIDE, value_range)
    except (FetchError, DecodeError):
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def _picture(content: bytes, text: str) -> Element:
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(content).decode()
    return tag("img", alt=text, src=f"data:image/{kind};base64,{data}", loading="lazy")

"""Charts: bars, histograms and curves as inline SVG.

What is drawn is stretched to the width that there is, so all text stands beside it, in HTML.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from segray.page.markup import Content, Element, count_images, format_share, tag

Colour = tuple[int, int, int]

_HEIGHT = 100  # of a chart, in units of its own
_STEPS = (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10)


def swatch(colour: Colour) -> Element:
    """A small square of a class's colour."""
    return _svg(
        tag("rect", width=100, height=_HEIGHT, fill=_hex(colour)), class_="swatch", width=100
    )


def share_bar(shares: Sequence[float], colours: Sequence[Colour], label: str) -> Element:
    """One bar in parts, the lengths of which are shares of its whole; 0 to 1 each."""
    parts, start = [], 0.0
    for share, colour in zip(shares, colours, strict=True):
        if share > 0:
            parts.append(
                tag(
                    "rect",
                    x=f"{start:.2f}",
                    width=f"{100 * share:.2f}",
                    height=_HEIGHT,
                    fill=_hex(colour),
                )
            )
        start += 100 * share
    return _svg(*parts, class_="bar", width=100, label=label)


def histogram(
    counts: npt.NDArray[np.int64],
    colour: Colour,
    of: str,
    in_words: Callable[[float], str],
    axis: Sequence[str],
    count: Callable[[int], str] = count_images,
) -> Element:
    """A histogram of images, or of other things, over equally wide bins, from 0 to 1.

    Args:
        counts: int64 [bins].
        colour: colour of the bars.
        of: the quantity on the axis, for tooltips and screen readers.
        in_words: formats a value of it.
        axis: labels below, from left to right.
        count: formats a number of the things.
    """
    bins, top = len(counts), _round_up(int(counts.max(initial=1)))
    bars = []
    for place in np.flatnonzero(counts).tolist():
        height = max(1.0, _HEIGHT * int(counts[place]) / top)  # one image of a million is seen too
        span = f"{in_words(place / bins)} to {in_words((place + 1) / bins)}"
        bars.append(
            tag(
                "rect",
                tag("title", f"{of} {span}: {count(int(counts[place]))}"),
                x=f"{place + 0.06:.2f}",
                y=f"{_HEIGHT - height:.1f}",
                width=0.88,
                height=f"{height:.1f}",
                fill=_hex(colour),
            )
        )
    label = f"histogram of {count(int(counts.sum()))} by {of}"
    return _framed(_svg(*bars, width=bins, label=label), count(int(top)), axis)


def compared_histograms(
    reference: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    of: str,
    in_words: Callable[[float], str],
    axis: Sequence[str],
) -> Element:
    """The histogram of images as bars, and that of other images as an outline; in shares of each.

    Args:
        reference: int64 [bins], the other images.
        counts: int64 [bins], the images.
        of: the quantity on the axis, for tooltips and screen readers.
        in_words: formats the quantity at a place of the axis, 0 to 1.
        axis: labels below, from left to right.
    """
    bins = len(counts)
    shares, others = counts / counts.sum(), reference / reference.sum()
    top = _round_up(float(max(shares.max(), others.max())))
    bars, outline = [], [f"M0 {_HEIGHT}"]
    for place, (share, other) in enumerate(zip(shares.tolist(), others.tolist(), strict=True)):
        height = _HEIGHT * share / top
        span = f"{in_words(place / bins)} to {in_words((place + 1) / bins)}"
        text = f"{of} {span}: {format_share(share)} here, {format_share(other)} in training"
        bars += [
            tag(
                "rect",
                class_="share",
                x=f"{place + 0.06:.2f}",
                y=f"{_HEIGHT - height:.1f}",
                width=0.88,
                height=f"{height:.1f}",
            ),
            tag("rect", tag("title", text), class_="spot", x=place, width=1, height=_HEIGHT),
        ]
        outline.append(f"V{_HEIGHT - _HEIGHT * other / top:.1f}H{place + 1}")
    path = tag("path", class_="reference", d=f"{''.join(outline)}V{_HEIGHT}")
    label = f"histograms of {count_images(int(counts.sum()))} and of the training by {of}"
    return _framed(_svg(*bars, path, width=bins, label=label), format_share(top), axis)


def curve(values: npt.NDArray[np.float64], unit: str, spans: Sequence[str], label: str) -> Element:
    """A quantity over time, a step for each span of it.

    Args:
        values: float64 [spans], none negative.
        unit: unit of the values.
        spans: the beginning of each span, and the end of the last one.
        label: description for screen readers.
    """
    top = _round_up(float(values.max(initial=0)) or 1.0)
    heights = [f"{_HEIGHT - _HEIGHT * value / top:.2f}" for value in values.tolist()]
    path = "".join(f"V{height}H{place + 1}" for place, height in enumerate(heights))
    # Nothing to be seen: they have the tooltips.
    spots = [
        tag(
            "rect",
            tag("title", f"{spans[place]} to {spans[place + 1]}: {value:.3g} {unit}"),
            class_="spot",
            x=place,
            width=1,
            height=_HEIGHT,
        )
        for place, value in enumerate(values.tolist())
    ]
    drawing = _svg(
        tag("path", class_="area", d=f"M0 {_HEIGHT}{path}V{_HEIGHT}Z"),
        tag("path", class_="line", d=f"M0 {heights[0]}{path}"),
        *spots,
        width=len(values),
        label=label,
    )
    return _framed(drawing, f"{top:g} {unit}", (spans[0], spans[-1]))


def _svg(
    *content: Content, width: int, class_: str | None = None, label: str | None = None
) -> Element:
    return tag(
        "svg",
        *content,
        class_=class_,
        viewBox=f"0 0 {width} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img" if label else None,
        aria_label=label,
        aria_hidden=None if label else "true",
    )


def _framed(drawing: Element, top: str, below: Sequence[str]) -> Element:
    """A chart with the ends of its axes written beside it."""
    return tag(
        "div",
        tag("span", top, class_="top"),
        drawing,
        tag("div", *(tag("span", text) for text in below), class_="axis"),
        class_="chart",
    )


def _round_up(value: float) -> float:
    """The next number of at most two digits that is easily halved."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _STEPS if value <= step * power * (1 + 1e-9))


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)

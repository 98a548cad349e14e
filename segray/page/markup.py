"""Markup: elements of an HTML page in which all text is escaped, and numbers as people read them.

A page is built as a tree and serialised once, so that no name or message of the data can end up in
it as markup.
"""

import math
import re
from xml.etree import ElementTree

Element = ElementTree.Element
Content = Element | str | None

#: Stands where there is no value.
NONE = "\N{EN DASH}"


def tag(name: str, *content: Content, **attributes: object) -> Element:
    """An element with its attributes and what is in it.

    Args:
        name: tag name of the element.
        content: elements and text in their order; None is left out.
        attributes: underscores stand for hyphens, and a last one for none, as in ``class_``. None
            leaves an attribute out.
    """
    element = Element(
        name,
        {
            key.rstrip("_").replace("_", "-"): str(value)
            for key, value in attributes.items()
            if value is not None
        },
    )
    for part in content:
        if part is None:
            continue
        if not isinstance(part, str):
            element.append(part)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + part
        else:
            element.text = (element.text or "") + part
    return element


def uri_tag(uri: str, **attributes: object) -> Element:
    """A URI, kept apart from the writing direction around it, that may be broken at its slashes."""
    first, *others = re.split("(?<=/)(?!/)", uri)
    pieces = [piece for other in others for piece in (tag("wbr"), other)]
    return tag("bdi", first, *pieces, **attributes)


def to_html(*elements: Element) -> str:
    """Elements as HTML."""
    return "".join(
        ElementTree.tostring(element, encoding="unicode", method="html") for element in elements
    )


def format_count(number: float) -> str:
    """A number of things: 1,234,567."""
    return f"{number:,.0f}"


def count_images(number: int) -> str:
    """A number of images, with the word."""
    return f"{format_count(number)} image{'s' * (number != 1)}"


def count_regions(number: int) -> str:
    """A number of regions, with the word."""
    return f"{format_count(number)} region{'s' * (number != 1)}"


def format_rate(number: float) -> str:
    """A number per second, to three digits or to the unit."""
    if number >= 100 or not number:
        return format_count(number)
    digits = max(0, 2 - math.floor(math.log10(number)))
    return f"{number:.{min(digits, 4)}f}"


def format_share(share: float) -> str:
    """A share of 0 to 1 in percent: 12.3%, and never 0% or 100% of what is not."""
    percent = 100 * share
    if 0 < percent < 0.05:
        return "<0.1%"
    if 99.95 <= percent < 100:
        return ">99.9%"
    return f"{percent:.1f}%" if percent % 100 else f"{percent:.0f}%"


def format_confidence(confidence: float | None) -> str:
    """A mean probability or an IoU, to three digits; a dash where there is none."""
    return NONE if confidence is None or math.isnan(confidence) else f"{confidence:.3f}"


def format_seconds(seconds: float) -> str:
    """A duration in its two largest units: 2 h 13 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 2880:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"

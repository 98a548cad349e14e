"""The errors in a report: their kinds, with examples."""

from collections.abc import Sequence

from segray.bulk.census import ErrorKind
from segray.page.markup import Element, count_images, format_count, tag, uri_tag

_KINDS = 100  # in the table
_MESSAGE_LETTERS = 500


def draw_errors(errors: Sequence[ErrorKind]) -> list[Element]:
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

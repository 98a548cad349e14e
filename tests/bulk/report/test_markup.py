"""Markup: text stays text, and numbers are written as people read them."""

import pytest

from segray.page.markup import (
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


def test_text_and_attributes_are_escaped() -> None:
    hostile = "</b><script>\"&amp;'"
    made = to_html(tag("b", hostile, tag("i", hostile), hostile, title=hostile, data_x=None))
    text = "&lt;/b&gt;&lt;script&gt;\"&amp;amp;'"
    start, _, content = made.partition(">" + text)
    assert content == f"<i>{text}</i>{text}</b>"
    assert start.startswith('<b title="')
    value = start.removeprefix('<b title="').removesuffix('"')
    assert '"' not in value
    assert "&amp;amp;" in value


def test_attributes_have_the_names_of_html() -> None:
    assert to_html(tag("p", None, "x", class_="a", data_view=1)) == (
        '<p class="a" data-view="1">x</p>'
    )


def test_a_uri_may_be_broken_after_its_slashes() -> None:
    assert to_html(uri_tag("s3://bucket/a<b/c.jpg")) == (
        "<bdi>s3://<wbr>bucket/<wbr>a&lt;b/<wbr>c.jpg</bdi>"
    )
    assert to_html(uri_tag("name.jpg", class_="x")) == '<bdi class="x">name.jpg</bdi>'


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"),
        (1e-9, "<0.1%"),
        (0.0005, "0.1%"),
        (0.1234, "12.3%"),
        (0.9994, "99.9%"),
        (0.9999999, ">99.9%"),
        (1, "100%"),
    ],
)
def test_shares(share: float, text: str) -> None:
    assert format_share(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.9, "60 s"),
        (59.96, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (7999, "2 h 13 min"),
        (86_400, "24 h 0 min"),
        (260_000, "3 d 0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0, "0"),
        (0.00123, "0.0012"),
        (0.5, "0.500"),
        (9.876, "9.88"),
        (45.67, "45.7"),
        (12345.6, "12,346"),
    ],
)
def test_rates(rate: float, text: str) -> None:
    assert format_rate(rate) == text


def test_counts_and_confidences() -> None:
    assert format_count(1234567) == "1,234,567"
    assert [count_images(n) for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert format_confidence(0.98765) == "0.988"
    assert format_confidence(None) == format_confidence(float("nan")) == "\N{EN DASH}"

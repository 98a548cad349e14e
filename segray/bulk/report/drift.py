"""The drift in a report: what has moved, and the images that are most unlike the training's."""

from collections.abc import Mapping

from segray.bulk.drift import Drift, FeatureDrift
from segray.bulk.report.gallery import draw_picture
from segray.model.reference import BINS
from segray.page.charts import compared_histograms
from segray.page.markup import (
    Element,
    count_images,
    format_confidence,
    format_count,
    format_share,
    tag,
    uri_tag,
)

_BARS = 32  # of a histogram; divides BINS
_TITLES = {
    "warmth": "warmth (red less blue)",
    "upper_detail": "detail in the upper half",
    "aspect": "width by height",
    "expected_iou": "expected IoU",
}
_SHARES = ("upper_detail",)


def draw_drift(drift: Drift | None, unlike: Mapping[str, bytes]) -> list[Element]:
    """What the section says.

    Args:
        drift: the drift; None without a reference or images.
        unlike: the pictures of the images that are most unlike those of the model, by their URIs:
            JPEG files.
    """
    if drift is None:
        text = (
            "Not known: there is no image, or the model has no reference.json, because it was "
            "trained with an earlier version of segray."
        )
        return [tag("p", text)]
    moved, still = drift.moved, [feature for feature in drift.features if not feature.moved]
    return [
        tag("p", tag("b", describe_drift(drift))),
        tag("div", *map(_draw_feature, moved), class_="pair"),
        *_draw_unlike(unlike),
        tag(
            "details",
            tag("summary", f"{len(still)} features that have not moved"),
            tag("div", *map(_draw_feature, still), class_="pair"),
        )
        if still
        else tag("p"),
    ]


def describe_drift(drift: Drift) -> str:
    """The features that have moved, in a sentence."""
    if not drift.moved:
        return "No feature of the images has moved."
    parts = [f"{title_of(feature)} {_describe_medians(feature)}" for feature in drift.moved]
    return f"Moved, by their medians: {'; '.join(parts)}."


def title_of(drift: FeatureDrift) -> str:
    """The feature in words."""
    name = drift.feature.name
    if name.startswith("fraction_"):
        return f"share of {name.removeprefix('fraction_')}"
    return _TITLES.get(name, name)


def _describe_medians(drift: FeatureDrift) -> str:
    before, after = (_in_words(drift, value) for value in drift.medians)
    return f"from {before} to {after}"


def _in_words(drift: FeatureDrift, value: float) -> str:
    name = drift.feature.name
    if name.startswith("fraction_") or name in _SHARES:
        return format_share(value)
    if name == "size":
        return f"{value / 1e6:.3g} megapixels" if value >= 1e5 else f"{format_count(value)} pixels"
    return format_confidence(value) if name == "expected_iou" else f"{value:.2f}"


def _draw_feature(drift: FeatureDrift) -> Element:
    title, scale = title_of(drift), drift.feature.scale
    reference, counts = (
        bins.reshape(_BARS, BINS // _BARS).sum(axis=1) for bins in (drift.reference, drift.counts)
    )
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("b", title),
            f" median {_describe_medians(drift)}; distance {drift.distance:.2f}, of which chance "
            f"explains {min(1.0, drift.chance):.2f}",
        ),
        compared_histograms(
            reference,
            counts,
            title,
            lambda place: _in_words(drift, scale.value_at(place)),
            tuple(_in_words(drift, scale.value_at(place)) for place in (0, 0.5, 1)),
        ),
    )


def _draw_unlike(unlike: Mapping[str, bytes]) -> list[Element]:
    if not unlike:
        return []
    return [
        tag("h3", f"The {count_images(len(unlike))} most unlike those of the training"),
        tag(
            "ul",
            *(
                tag(
                    "li",
                    draw_picture(image, "image", "image/jpeg", f"image {uri}"),
                    uri_tag(uri.rpartition("/")[2], title=uri),
                )
                for uri, image in unlike.items()
            ),
            class_="strip",
        ),
    ]

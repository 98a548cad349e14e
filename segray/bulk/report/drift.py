"""The drift in a report: what has moved, and the images most unlike the training images."""

from collections.abc import Mapping, Sequence

from segray.bulk.drift import LEAST, Drift, FeatureDrift
from segray.bulk.report.gallery import draw_picture
from segray.model.reference import BINS
from segray.page.charts import compared_histograms
from segray.page.markup import (
    Element,
    format_confidence,
    format_count,
    format_share,
    tag,
    uri_tag,
)

_BARS = 32  # of a histogram; divides BINS
_OPEN_FEATURES = 12  # that are seen before they are asked for
_NAMED_FEATURES = 5  # in the sentence
_TITLES = {
    "warmth": "warmth (red less blue)",
    "upper_detail": "detail in the upper half",
    "aspect": "width by height",
    "expected_iou": "expected IoU",
}


def draw_drift(drift: Drift | None, unlike: Mapping[str, bytes]) -> list[Element]:
    """Draw the section of the drift.

    Args:
        drift: the drift; None without a reference or images.
        unlike: pictures of the images that are most unlike the training images, by their URIs:
            JPEG files.
    """
    if drift is None:
        return [tag("p", describe_drift(drift))]
    moved, still = drift.moved, [feature for feature in drift.features if not feature.moved]
    shown = moved[:_OPEN_FEATURES]
    return [
        tag("p", tag("b", describe_drift(drift))),
        tag("div", *map(_draw_feature, shown), class_="pair"),
        *_fold("more features that have moved", moved[_OPEN_FEATURES:]),
        *_draw_unlike(unlike),
        *_fold("features that have not moved", still),
    ]


def _fold(what: str, features: Sequence[FeatureDrift]) -> list[Element]:
    """Features that are seen when they are asked for."""
    if not features:
        return []
    charts = tag("div", *map(_draw_feature, features), class_="pair")
    return [tag("details", tag("summary", f"{what}: {len(features)}"), charts)]


def describe_drift(drift: Drift | None) -> str:
    """The features that have moved, in a sentence; None stands for a drift that is not known."""
    if drift is None:
        return (
            "Whether the images have drifted is not known: no image was segmented, or the model "
            "has no reference.json of this version."
        )
    if not drift.can_tell:
        return "There are too few images to tell whether they differ from the training images."
    if not drift.moved:
        return f"No drift of the images from the training images was found{_limit(drift)}."
    parts = [
        f"{title_of(feature)} (distance {feature.distance:.2f}, mean {_describe_means(feature)})"
        for feature in drift.moved[:_NAMED_FEATURES]
    ]
    if others := len(drift.moved) - len(parts):
        parts.append(f"and {others} more")
    return f"The images have drifted from the training images: {', '.join(parts)}."


def _limit(drift: Drift) -> str:
    """Return the rest of the sentence: what too few images hide; nothing if they hide nothing."""
    images, masks = drift.chance, max(feature.chance for feature in drift.features)
    if masks <= LEAST:
        return ""
    of_masks = f"{masks:.2f}" if masks < 1 else "1"
    return (
        f"; there are too few images to notice distances below {max(images, LEAST):.2f}, or below "
        f"{of_masks} of the masks, which are compared with the validation set alone"
    )


def title_of(drift: FeatureDrift) -> str:
    """The feature in words."""
    name = drift.feature.name
    if name.startswith("fraction_"):
        return f"share of {name.removeprefix('fraction_')}"
    return _TITLES.get(name, name)


def _describe_means(drift: FeatureDrift) -> str:
    before, after = (_in_words(drift, value) for value in drift.means)
    return f"{after} instead of {before}"


def _in_words(drift: FeatureDrift, value: float) -> str:
    name = drift.feature.name
    if name.startswith("fraction_") or name == "upper_detail":
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
            f" distance {drift.distance:.2f}; chance alone explains up to "
            f"{min(1.0, drift.chance):.2f}; mean {_describe_means(drift)}",
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
        tag("h3", "Most unlike the training images, among those whose pictures were kept"),
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

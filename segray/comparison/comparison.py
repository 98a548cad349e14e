"""The comparison: what differs between two segmentations, over all images."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segray.comparison.changes import Change, share_changed
from segray.data.skipped import Skipped
from segray.pixels.metrics import Confusion, class_iou
from segray.results.segmentation import Segmentation
from segray.version import __version__


@dataclass
class Comparison:
    """What differs between two segmentations.

    Attributes:
        output: the absolute URI of the output folder.
        before: the first segmentation.
        after: the second one.
        alone: the images that only the first, and only the second, has.
        confusion: the pixels by their class before (rows) and after (columns).
        compared: the number of images that were compared.
        most: those that changed most, in this order.
        skipped: the images whose masks are damaged.
        seconds: the duration.
    """

    output: str
    before: Segmentation
    after: Segmentation
    alone: tuple[int, int]
    confusion: Confusion
    compared: int = 0
    most: list[Change] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def changed(self) -> float:
        """The share of pixels that have another class, 0 to 1."""
        return share_changed(self.confusion)

    @property
    def agreement(self) -> dict[str, float | None]:
        """The IoU of each class between the two; None for a class that neither has."""
        values = class_iou(self.confusion).tolist()
        return {
            name: None if np.isnan(value) else value
            for name, value in zip(self.before.classes, values, strict=True)
        }

    @property
    def settings(self) -> dict[str, tuple[Any, Any]]:
        """The settings that differ, with their values before and after.

        One that only one of the two has, because the other is of an earlier version, is left out.
        """
        before, after = self.before.settings, self.after.settings
        both = [name for name in before if name in after]
        return {n: (before[n], after[n]) for n in both if before[n] != after[n]}

    def to_json(self) -> dict[str, Any]:
        """Return the figures, JSON-ready."""
        sides = zip(("before", "after"), (self.before, self.after), self.alone, strict=True)
        return {
            **{
                name: {
                    "results": side.uri,
                    "model": side.model,
                    "images_alone": alone,
                    "expected_mean_iou": side.expected_mean_iou,
                    "expected_iou": side.expected_iou,
                }
                for name, side, alone in sides
            },
            "settings": {
                name: dict(zip(("before", "after"), values, strict=True))
                for name, values in self.settings.items()
            },
            "compared": self.compared,
            "skipped": len(self.skipped),
            "changed": self.changed,
            "agreement": self.agreement,
            "confusion": self.confusion.tolist(),
            "seconds": round(self.seconds, 3),
            "version": __version__,
        }

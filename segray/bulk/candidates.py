"""Candidates for the gallery of the report: the few images of a chunk whose pictures are kept."""

import math
from bisect import insort
from collections.abc import Sequence

from segray.pixels.decoding import Picture

#: The longest side of a picture that is kept, in pixels.
SIDE = 256

# A small run has few chunks and keeps many images of each; for a large run a few of each are more
# than enough. A chunk of 16 images keeps all, and one of 512 two random ones, the two with the
# lowest expected IoU, and one for each of at most 8 classes.
_MOST, _LEAST, _OF = 16, 2, 1024
_UNSURE = 4
_CLASSES = 8


def expected_pictures(images: float, classes: int) -> float:
    """Compute how many pictures a chunk keeps, if its choices are independent of each other.

    Args:
        images: mean number of images of a chunk that are segmented.
        classes: number of classes.
    """
    count = _random_pictures(round(images))
    chosen = (count, min(count, _UNSURE), min(classes, _CLASSES))
    missed = math.prod(1 - min(1.0, number / max(1.0, images)) for number in chosen)
    return images * (1 - missed)


def _random_pictures(images: int) -> int:
    return min(max(_OF // max(1, images), _LEAST), _MOST)


_Rank = tuple[float, int]  # a measure, and the id to tell equal ones apart


class Candidates:
    """Keeps the pixels of the most informative images added so far.

    These are a random sample, the images with the lowest expected IoU, and for each class the image
    with the largest share of it; of many classes, those with the largest shares. They do not depend
    on the order in which images are added.

    Args:
        images: number of images of the chunk.
    """

    def __init__(self, images: int) -> None:
        self._count = _random_pictures(images)
        self._random: list[_Rank] = []
        self._unsure: list[_Rank] = []
        self._most: dict[int, _Rank] = {}
        self._pictures: dict[int, Picture] = {}

    @property
    def pictures(self) -> dict[int, Picture]:
        """The candidates by their ids."""
        return self._pictures

    def add(
        self,
        id: int,
        fractions: Sequence[float],
        expected_iou: float,
        picture: Picture,
    ) -> None:
        """Consider an image.

        Args:
            id: id of the image; no other one has it.
            fractions: the share of each class in the mask, 0 to 1.
            expected_iou: that of the image, 0 to 1.
            picture: the image as the network saw it.
        """
        # An id is a digest, so the smallest ones are a random sample: of any number of chunks
        # together as well.
        _insert(self._random, (0.0, id), self._count)
        _insert(self._unsure, (expected_iou, id), min(self._count, _UNSURE))
        for class_id, fraction in enumerate(fractions):
            if fraction > 0:
                rank = (-fraction, id)
                self._most[class_id] = min(self._most.get(class_id, rank), rank)
        while len(self._most) > _CLASSES:
            del self._most[max(self._most, key=lambda class_id: (self._most[class_id], class_id))]
        self._pictures[id] = picture
        wanted = {id for _, id in (*self._random, *self._unsure, *self._most.values())}
        self._pictures = {id: self._pictures[id] for id in self._pictures if id in wanted}


def _insert(ranks: list[_Rank], rank: _Rank, most: int) -> None:
    """Insert a rank into the ascending list of the `most` lowest ones."""
    insort(ranks, rank)
    del ranks[most:]

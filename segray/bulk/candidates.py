"""Candidates: the few images of a chunk whose pictures are kept for the gallery of the report."""

from bisect import insort
from collections.abc import Sequence

from segray.pixels.decoding import Picture

#: The longest side of a picture that is kept, in pixels.
SIDE = 256

# A small run has few chunks, and of each it keeps many images, so that there is something to choose
# from; of a large run's chunks a few each are more than enough: of a chunk of 16 images all, of one
# of 512 two by each of the two measures, and one for each of some classes.
_MOST, _LEAST, _OF = 16, 2, 1024
_UNSURE = 4
_CLASSES = 8

_Rank = tuple[float, int]  # a measure, and the id to tell equal ones apart


class Candidates:
    """What is most worth a look among the images added so far; of no others are pixels held.

    That is an even sample, the images of which the model is least sure, and of each class the
    one with most of it; of many classes, those that fill most of an image. It does not depend on
    the order in which images are added.

    Args:
        images: how many the chunk has.
    """

    def __init__(self, images: int) -> None:
        self._count = min(max(_OF // max(1, images), _LEAST), _MOST)
        self._even: list[_Rank] = []
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
        confidences: Sequence[float | None],
        picture: Picture,
    ) -> None:
        """Consider an image.

        Args:
            id: of the image; no other one has it.
            fractions: of each class, its share of the mask; 0 to 1.
            confidences: mean of each class, 0 to 1; None of one that is not there.
            picture: the image as the network saw it.
        """
        # An id is a digest, so the smallest ones are a random sample: of any number of chunks
        # together as well.
        _insert(self._even, (0.0, id), self._count)
        sure = sum(f * (c or 0) for f, c in zip(fractions, confidences, strict=True))
        _insert(self._unsure, (sure, id), min(self._count, _UNSURE))
        for class_id, fraction in enumerate(fractions):
            if fraction > 0:
                rank = (-fraction, id)
                self._most[class_id] = min(self._most.get(class_id, rank), rank)
        while len(self._most) > _CLASSES:
            del self._most[max(self._most, key=lambda class_id: (self._most[class_id], class_id))]
        self._pictures[id] = picture
        wanted = {id for _, id in (*self._even, *self._unsure, *self._most.values())}
        self._pictures = {id: self._pictures[id] for id in self._pictures if id in wanted}


def _insert(ranks: list[_Rank], rank: _Rank, most: int) -> None:
    """Put a rank into a list of the lowest ones, in ascending order."""
    insort(ranks, rank)
    del ranks[most:]

"""Decoding: read pairs of files into arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.data.labelled import DEFAULT_READING, Reading, decode_pair, fetch_pair
from segray.data.pairs import Pair
from segray.errors import InputError
from segray.pixels.framing import Frame
from segray.pixels.labels import IGNORED, Labels
from segray.pixels.orientation import Says
from segray.storage.parallel import map_ahead
from segray.storage.uri import describe_error

#: Images uint8 [B, H, W, 3] RGB, and masks uint8 [B, H, W] of class ids or `IGNORED`.
Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
#: The same, or lists of arrays if each image has a size of its own.
Block = Arrays | tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.uint8]]]

# Pairs fetched concurrently, because a request to a store takes longer than decoding.
_FETCHES = 8


@dataclass(frozen=True)
class Finding:
    """The result of reading one pair, without its pixels.

    Attributes:
        error: the reason why the pair cannot be used; empty if it can.
        digest: a digest of the content of both files.
        class_pixels: the number of pixels of each class in the mask, at the resolution at which it
            is kept.
        size: height and width of the image at that resolution.
        says: the pair's evidence on the orientation in which the masks of its set were drawn.
        turned: True if the mask was rotated with its image.
    """

    error: str = ""
    digest: str = ""
    class_pixels: Sequence[int] = ()
    size: tuple[int, int] = (0, 0)
    says: Says = "nothing"
    turned: bool = False


def decode_batch(
    pairs: Sequence[Pair],
    labels: Labels,
    frame: Frame,
    reading: Reading = DEFAULT_READING,
) -> tuple[Block, list[Finding]]:
    """Read and decode pairs.

    Args:
        pairs: the pairs of files.
        labels: the mapping from mask values to classes.
        frame: the frame that images and masks are brought to.
        reading: the settings with which the files are read.

    Returns:
        The arrays of the usable pairs, in the order of the pairs, and a finding for each pair.
    """
    images, masks, findings = [], [], []
    contents = map_ahead(_fetch, pairs, _FETCHES)
    for pair, content in zip(pairs, contents, strict=True):
        try:
            if isinstance(content, Exception):
                raise content
            labelled = decode_pair(pair, content, labels, frame, reading)
        except InputError as error:
            findings.append(Finding(error=str(error)))
            continue
        except Exception as error:
            # Whatever a store raises for one object concerns that object only.
            findings.append(Finding(error=describe_error(pair.image, error)))
            continue
        small = frame.scale_mask(labelled.class_ids)
        box = frame.place(*labelled.class_ids.shape)
        images.append(labelled.picture.pixels)
        masks.append(small)
        counts = np.bincount(small.ravel(), minlength=IGNORED + 1)[: len(labels)].tolist()
        findings.append(
            Finding(
                digest=labelled.digest,
                class_pixels=counts,
                size=(box.height, box.width),
                says=labelled.says,
                turned=labelled.turned,
            )
        )
    if frame.fit == "tile":
        return (images, masks), findings
    shape = (-1, *frame.shape)
    arrays = (
        np.array(images, dtype=np.uint8).reshape(*shape, 3),
        np.array(masks, dtype=np.uint8).reshape(shape),
    )
    return arrays, findings


def _fetch(pair: Pair) -> tuple[bytes, bytes] | Exception:
    try:
        return fetch_pair(pair)
    except Exception as error:
        return error

"""Labelled pictures: an image and what each of its pixels is, read from a pair of files."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segray.errors import InputError
from segray.pixels.decoding import DecodeError, Picture, read_mask_values, read_picture
from segray.pixels.labels import Labels
from segray.storage.files import read_bytes
from segray.storage.pairs import Pair


@dataclass(frozen=True)
class LabelledPicture:
    """A pair of files, decoded.

    Attributes:
        picture: the image, scaled to a square, and its own width and height.
        class_ids: uint8 [H, W] at the image's own size, `segray.pixels.labels.IGNORED` where
            nothing is known.
        digest: of the content of both files, 32 hexadecimal digits.
    """

    picture: Picture
    class_ids: npt.NDArray[np.uint8]
    digest: str


def read_pair(pair: Pair, labels: Labels, image_size: int) -> LabelledPicture:
    """Read and decode a pair of files.

    Args:
        pair: the files.
        labels: says which mask value or colour is which class.
        image_size: the side of the square that the image is scaled to, in pixels.

    Raises:
        InputError: a file cannot be read, or the mask does not fit its image or the classes; the
            message names the file.
    """
    uri = pair.image
    try:
        image_content = read_bytes(uri)
        picture = read_picture(image_content, image_size)
        uri = pair.mask
        mask_content = read_bytes(uri)
        values = read_mask_values(mask_content, labels.coloured)
        height, width = values.shape
        if (width, height) != (picture.width, picture.height):
            raise InputError(
                f"is {width} x {height} pixels, and its image {pair.image} is "
                f"{picture.width} x {picture.height}: a mask has the size of its image"
            )
        ids = labels.to_class_ids(values)
    except (DecodeError, InputError) as error:
        reason = str(error)
        raise InputError(reason if uri in reason else f"{uri}: {reason}") from error
    return LabelledPicture(picture, ids, _digest(image_content, mask_content))


def digest_pair(pair: Pair) -> str:
    """What `LabelledPicture` has as digest, without decoding.

    Raises:
        InputError: a file cannot be read.
    """
    return _digest(read_bytes(pair.image), read_bytes(pair.mask))


def _digest(image: bytes, mask: bytes) -> str:
    return hashlib.blake2b(image + mask, digest_size=16).hexdigest()

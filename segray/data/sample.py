"""The sample data set on disk: images with masks for training, and images to segment."""

import io
import logging

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.pixels.sample import draw_sample
from segray.storage.files import write_bytes
from segray.storage.uri import absolute_uri, exists, join_uri

log = logging.getLogger(__name__)

#: The folder of the sample data set, for jobs that are given no data.
SAMPLE_FOLDER = "output/sample"

LABELLED = 200
UNLABELLED = 32
_DONE = "README.txt"
_README = (
    "Drawn by segray: images/ and masks/ (1 pet, 2 background, 3 border) to train on,\n"
    "new/ to segment. Delete this folder and it is drawn again.\n"
)


def write_sample(folder: str) -> None:
    """Draw the sample data set, unless the folder contains all of it.

    It has ``images/*.jpg`` with ``masks/*.png``, and ``new/*.jpg`` without masks.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = absolute_uri(folder)
    if exists(join_uri(folder, _DONE)):
        log.info(f"no data given: taking the sample images in {folder}")
        return
    log.info(f"no data given: drawing {LABELLED + UNLABELLED} sample images into {folder}")
    for index in range(LABELLED + UNLABELLED):
        image, trimap = draw_sample(index)
        name = f"animal_{index:04d}"
        if index < LABELLED:
            write_bytes(join_uri(folder, "images", f"{name}.jpg"), _encode(image, "JPEG"))
            write_bytes(join_uri(folder, "masks", f"{name}.png"), _encode(trimap, "PNG"))
        else:
            write_bytes(join_uri(folder, "new", f"{name}.jpg"), _encode(image, "JPEG"))
    # Written last, so that drawing starts over after an interruption.
    write_bytes(join_uri(folder, _DONE), _README.encode())


def _encode(pixels: npt.NDArray[np.uint8], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=92)
    return buffer.getvalue()

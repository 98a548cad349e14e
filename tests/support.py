"""Plain functions that the tests share."""

import contextlib
import io
import json
import logging
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.model.architecture import Architecture
from segray.model.encoders import ENCODERS
from segray.pixels.framing import Frame
from segray.storage.files import write_bytes
from segray.storage.uri import join_uri


class _Collector(logging.Handler):
    def __init__(self, lines: list[str], react: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._lines, self._react = lines, react

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        self._lines.append(line)
        self._react(line)


@contextlib.contextmanager
def logged_lines(react: Callable[[str], None] = lambda line: None) -> Iterator[list[str]]:
    """Collect the lines that a job would print in the block.

    Args:
        react: called with each line, before the job goes on.
    """
    logger, lines = logging.getLogger("segray"), []  # type: logging.Logger, list[str]
    collector = _Collector(lines, react)
    before = logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(collector)
        logger.setLevel(before)


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def encode(pixels: npt.NDArray[np.generic], kind: str, **options: object) -> bytes:
    """An image file's content, of uint8 [H, W, 3], uint8 [H, W] or uint16 [H, W]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write_shapes(folder: str, count: int, seed: int = 0) -> None:
    """A labelled set that is learned in seconds: images/*.jpg and masks/*.png of a bright box.

    Mask values: 10 for the box, 20 around it; sizes differ from image to image.
    """
    rng = np.random.default_rng(seed)
    for number in range(count):
        height, width = rng.integers(30, 70, 2)
        mask = np.full((height, width), 20, dtype=np.uint8)
        top, left = rng.integers(2, height // 2), rng.integers(2, width // 2)
        mask[top : top + height // 3, left : left + width // 3] = 10
        image = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        image[mask == 10] += 150
        write_bytes(join_uri(folder, "images", f"shape_{number}.jpg"), encode(image, "JPEG"))
        write_bytes(join_uri(folder, "masks", f"shape_{number}.png"), encode(mask, "PNG"))


#: The side of the square that the tests' bundle takes.
IMAGE_SIZE = 64
FRAME = Frame(IMAGE_SIZE, IMAGE_SIZE)

#: What the tests' bundle keeps beside its weights.
RECORD = {"configuration": {"epochs": 3}, "metrics": {"mean_iou": 0.5, "iou_border": None}}


def draw_picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Blobs of random colours, uint8 [H, W, 3]."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def draw_batch(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Images as the network takes them, uint8 [B, S, S, 3]."""
    return np.stack([draw_picture(IMAGE_SIZE, IMAGE_SIZE, seed + i) for i in range(count)])


# Encoders of two kinds; the others take minutes.
_QUICK = ("MobileNetV3Large", "EfficientNetV2B0")
#: The names of all encoders, as parameters of a test.
EACH_ENCODER = [
    pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow) for name in ENCODERS
]


def square(classes: int, side: int, **settings: Any) -> Architecture:
    """The architecture of a network that takes squares of a side, in pixels."""
    return Architecture(classes, side, side, **settings)


def change_bundle(uri: str, folder: Path, **settings: object) -> str:
    """Copy a bundle, with other settings of its architecture, and return the copy's URI."""
    copy = folder / "changed-model"
    shutil.copytree(uri, copy)
    description = copy / "model.json"
    document = json.loads(description.read_text())
    document["architecture"] |= settings
    description.write_text(json.dumps(document))
    return str(copy)

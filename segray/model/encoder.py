"""The encoder, MobileNetV2: which sizes it takes, and where its weights come from."""

import os
import tempfile
import urllib.request
from pathlib import Path

from segray.errors import InputError
from segray.storage.uri import absolute_uri, read_bytes

# The file that keras.applications.MobileNetV2(weights="imagenet", include_top=False) loads; its
# convolutions fit images of every size.
_IMAGENET_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
_IMAGENET_FOLDER = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2"
# It halves the image five times.
_STRIDE = 32
_TIMEOUT = 60  # seconds without a byte


def check_image_size(image_size: int) -> None:
    """Refuse a size that the encoder cannot halve five times.

    Raises:
        InputError: the size is no positive multiple of 32.
    """
    if image_size < _STRIDE or image_size % _STRIDE:
        raise InputError(
            f"--image-size {image_size} is no multiple of {_STRIDE}: take 96, 128, 224, ..."
        )


def read_encoder_weights(source: str) -> bytes | None:
    """The content of a MobileNetV2 weights file.

    Args:
        source: ``imagenet``, ``none``, or the URI of a file. ImageNet's weights are fetched once
            and kept where Keras keeps them; the environment's ``SEGRAY_IMAGENET_URL`` names a
            folder of a mirror to fetch them from instead.

    Returns:
        The file's content, None for ``none``.

    Raises:
        InputError: the file cannot be read or fetched; the message names the alternatives.
    """
    if source == "none":
        return None
    if source == "imagenet":
        return _read_imagenet()
    return read_bytes(absolute_uri(source))


def _read_imagenet() -> bytes:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = home / "models" / _IMAGENET_FILE
    if path.exists():
        return path.read_bytes()
    folder = os.environ.get("SEGRAY_IMAGENET_URL", _IMAGENET_FOLDER).rstrip("/")
    content = _download(f"{folder}/{_IMAGENET_FILE}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)
    return content


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            content: bytes = response.read()
            expected = response.headers.get("Content-Length")
    except (OSError, ValueError) as error:
        raise InputError(_no_weights(url, str(getattr(error, "reason", error)))) from error
    if expected is not None and int(expected) != len(content):
        raise InputError(_no_weights(url, f"got {len(content)} of {expected} bytes"))
    return content


def _no_weights(url: str, reason: str) -> str:
    return (
        f"cannot fetch the ImageNet weights from {url} ({reason}): give --encoder-weights FILE "
        "with a copy of that file, or --encoder-weights none to start from random weights"
    )

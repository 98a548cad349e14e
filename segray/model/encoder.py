"""The encoder, MobileNetV2: which sizes it takes, and where its weights come from."""

import http.client
import io
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from segray.errors import InputError
from segray.storage.files import read_bytes, write_bytes
from segray.storage.uri import absolute_uri, exists

# The file that keras.applications.MobileNetV2(weights="imagenet", include_top=False) loads; its
# convolutions fit images of every size. Keras publishes no digest of it, so that it is as good as
# the connection it came over.
_IMAGENET_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
_IMAGENET_FOLDER = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2"
#: The sides of the squares that it takes, in pixels. It halves them five times; past the upper end,
#: a layer's values fill no machine's memory.
IMAGE_SIZES = range(32, 16385, 32)
# A MobileNetV2 with its top has 14 MB of weights.
_MOST_BYTES = 1 << 26
_TIMEOUT = 60  # seconds without a byte


def check_image_size(image_size: int) -> None:
    """Refuse a size that is none of `IMAGE_SIZES`.

    Raises:
        InputError: the message has the nearest that is one.
    """
    if image_size not in IMAGE_SIZES:
        stride = IMAGE_SIZES.step
        nearest = min(max(round(image_size / stride) * stride, IMAGE_SIZES[0]), IMAGE_SIZES[-1])
        raise InputError(
            f"--image-size {image_size} is no multiple of {stride} up to {IMAGE_SIZES[-1]}: take "
            f"{nearest}, which is near"
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
    try:
        content = read_bytes(absolute_uri(source), _MOST_BYTES)
    except InputError as error:
        raise InputError(f"--encoder-weights: {error}") from error
    if not content:
        raise InputError(f"--encoder-weights {source} is an empty file: copy it again")
    return content


def _read_imagenet() -> bytes:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = str(home / "models" / _IMAGENET_FILE)
    if exists(path):
        return read_bytes(path, _MOST_BYTES)
    folder = os.environ.get("SEGRAY_IMAGENET_URL", _IMAGENET_FOLDER).rstrip("/")
    content = _download(f"{folder}/{_IMAGENET_FILE}")
    write_bytes(path, content)
    return content


def _download(url: str) -> bytes:
    try:
        if "@" in urllib.parse.urlsplit(url).netloc:
            raise InputError("SEGRAY_IMAGENET_URL must not hold credentials: name an open mirror")
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            content: bytes = response.read()
    except urllib.error.HTTPError as error:
        with error:
            reason = f"HTTP {error.code} {error.reason}"
        raise InputError(_no_weights(url, reason)) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(_no_weights(url, str(getattr(error, "reason", error)))) from error
    if not _is_hdf5(content):
        raise InputError(_no_weights(url, "the answer is no whole HDF5 file"))
    return content


def _is_hdf5(content: bytes) -> bool:
    """Whether it is a file that can be kept: not one cut short, and not a proxy's login page."""
    import h5py

    try:
        with h5py.File(io.BytesIO(content)):
            return True
    except OSError:
        return False


def _no_weights(url: str, reason: str) -> str:
    return (
        f"cannot fetch the ImageNet weights from {url} ({reason}): give --encoder-weights FILE "
        "with a copy of that file, or --encoder-weights none to start from random weights"
    )

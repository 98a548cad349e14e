"""The source of the encoder's weights."""

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
# convolutions fit images of every resolution. Keras publishes no checksum of it, so it is as
# trustworthy as the connection that it came over.
_IMAGENET_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
_IMAGENET_FOLDER = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2"
# The weights of a MobileNetV2 with its top have 14 MB.
_MOST_BYTES = 1 << 26
_TIMEOUT = 60  # seconds without a byte


def read_encoder_weights(source: str) -> bytes | None:
    """Read the content of a MobileNetV2 weights file.

    Args:
        source: ``imagenet``, ``none``, or the URI of a file. ImageNet's weights are downloaded once
            and stored in Keras' folder. The environment variable ``SEGRAY_IMAGENET_URL`` names the
            folder of a mirror to download them from.

    Returns:
        The content of the file, None for ``none``.

    Raises:
        InputError: the file cannot be read or downloaded; the message has the alternatives.
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
    """Return True for an intact HDF5 file, False for a truncated one or a proxy's login page."""
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

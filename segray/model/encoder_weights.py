"""The source of the encoder's weights."""

import http.client
import io
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from segray.errors import InputError
from segray.model.encoders import Encoder
from segray.storage.files import read_bytes, write_bytes
from segray.storage.uri import absolute_uri, exists

# The folder of the files that keras.applications loads with weights="imagenet" and
# include_top=False; their convolutions fit images of every resolution. Keras publishes no checksum
# of all of them, so they are as trustworthy as the connection that they came over.
_IMAGENET_FOLDER = "https://storage.googleapis.com/tensorflow/keras-applications"
# The largest weights, those of a ConvNeXtTiny with its top, have 115 MB.
_MOST_BYTES = 1 << 27
_TIMEOUT = 60  # seconds without a byte


def read_encoder_weights(source: str, encoder: Encoder) -> bytes | None:
    """Read the content of an encoder's weights file.

    Args:
        source: ``imagenet``, ``none``, or the URI of a file. ImageNet's weights are downloaded once
            and stored in Keras' folder. The environment variable ``SEGRAY_IMAGENET_URL`` names the
            folder of a mirror to download them from.
        encoder: the encoder.

    Returns:
        The content of the file, None for ``none``.

    Raises:
        InputError: the file cannot be read or downloaded; the message has the alternatives.
    """
    if source == "none":
        return None
    if source == "imagenet":
        return _read_imagenet(encoder)
    try:
        content = read_bytes(absolute_uri(source), _MOST_BYTES)
    except InputError as error:
        raise InputError(f"--encoder-weights: {error}") from error
    if not content:
        raise InputError(f"--encoder-weights {source} is an empty file: copy it again")
    return content


def _read_imagenet(encoder: Encoder) -> bytes:
    name = encoder.weights_file.rpartition("/")[2]
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = str(home / "models" / name)
    if exists(path):
        return read_bytes(path, _MOST_BYTES)
    mirror = os.environ.get("SEGRAY_IMAGENET_URL")
    url = f"{mirror.rstrip('/')}/{name}" if mirror else f"{_IMAGENET_FOLDER}/{encoder.weights_file}"
    content = _download(url)
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

"""The check of a bundle's file: refuse anything but what segray writes for the network."""

from typing import Any

from segray.errors import InputError
from segray.model.architecture import Architecture
from segray.model.counts import count_weights

# Bytes in a file per weight of the network: four, and some for names.
_BYTES_A_WEIGHT = 5
# The maximum number of characters of a file or an error that a message repeats.
_LONGEST = 200


def most_bytes(architecture: Architecture) -> int:
    """Return the maximum size of a file of a bundle of a network, in bytes."""
    return _BYTES_A_WEIGHT * count_weights(architecture)


def check_file(uri: str, content: bytes, architecture: Architecture) -> None:
    """Verify that a file contains the network that a bundle describes, without running any of it.

    Args:
        uri: the URI of ``model.onnx`` or ``model.weights.h5``.
        content: the content of that file.
        architecture: the described network.

    Raises:
        InputError: the file contains something else; the message describes it.
    """
    try:
        # One needs onnx and the other h5py, and a predictor uses only one of them.
        if uri.endswith(".onnx"):
            from segray.model.graph import check_graph

            check_graph(content, architecture)
        else:
            from segray.model.weights import check_weights

            check_weights(content, architecture)
    except ValueError as error:
        raise InputError(
            f"{uri} is not the network that model.json describes: {shorten(error)}; nothing of it "
            "was run: copy the bundle from where it was trained, or train anew"
        ) from error


def shorten(text: Any) -> str:
    """Put the text of a file or an error on one line of limited length."""
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"

"""The check of a bundle's file: it holds what segray writes of the network, or it is refused."""

from typing import Any

from segray.errors import InputError
from segray.model.shapes import count_weights

# Bytes of a file for each of the network's weights: four, and some for their names.
_BYTES_A_WEIGHT = 5
# Letters that a message repeats of what a file or an error says.
_LONGEST = 200


def most_bytes(classes: int) -> int:
    """How large a file of a bundle of so many classes can be."""
    return _BYTES_A_WEIGHT * count_weights(classes)


def check_file(uri: str, content: bytes, classes: int, image_size: int) -> None:
    """Hold a file against the network that a bundle describes; nothing of it is run.

    Args:
        uri: of ``model.onnx`` or ``model.weights.h5``.
        content: of that file.
        classes: C, the number of classes.
        image_size: S, the side of the square that the network takes, in pixels.

    Raises:
        InputError: it is something else; the message says what.
    """
    try:
        # The one needs onnx, the other h5py, and a predictor either.
        if uri.endswith(".onnx"):
            from segray.model.graph import check_graph

            check_graph(content, classes, image_size)
        else:
            from segray.model.weights import check_weights

            check_weights(content, classes)
    except ValueError as error:
        raise InputError(
            f"{uri} is not the network that model.json describes: {shorten(error)}; nothing of it "
            "was run: copy the bundle from where it was trained, or train anew"
        ) from error


def shorten(text: Any) -> str:
    """What a file or an error says, on one line of a bearable length."""
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"

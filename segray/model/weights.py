"""A Keras weights file: checked before Keras reads it.

HDF5 can refer to other files for its data, declare a terabyte that was never written, and
decompress a page to a gigabyte. Keras refuses most of it, with a traceback.
"""

import io
import math
from collections.abc import Iterator

import h5py

from segray.model.architecture import Architecture
from segray.model.counts import count_weights

# The largest weights file has some three thousand groups and data sets.
_MOST_OBJECTS = 10_000


def check_weights(content: bytes, architecture: Architecture) -> None:
    """Verify that a file contains as many weights as a network has, and nothing else.

    Args:
        content: the content of the HDF5 file.
        architecture: the network.

    Raises:
        ValueError: it does not; the message describes the difference in one line.
    """
    found = read_shapes(content)
    for name, (_, kind) in found.items():
        if kind != "<f4":
            raise ValueError(f"the weight {_quote(name)} is {kind}")
    count, expected = (
        sum(math.prod(shape) for shape, _ in found.values()),
        count_weights(architecture),
    )
    if count != expected:
        raise ValueError(f"it has {count} weights and not {expected}")


def check_encoder_weights(content: bytes) -> None:
    """Verify that reading a file reads no other file, and no more data than it contains.

    Raises:
        ValueError: it might; the message has the reason in one line.
    """
    # Keras stores its optimizer's step count beside the weights.
    read_shapes(content, kinds="fiu")


def read_shapes(content: bytes, kinds: str = "f") -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shapes and dtypes of all data sets of a file, without reading their values.

    Args:
        content: the content of the file.
        kinds: numpy's letters of the kinds of numbers that are allowed.

    Raises:
        ValueError: it contains something other than groups and plain numbers stored in the file.
    """
    try:
        with h5py.File(io.BytesIO(content)) as file:
            datasets = dict(_walk(file, kinds))
            if sum(dataset.nbytes for dataset in datasets.values()) > len(content):
                raise ValueError("its data sets are larger than the file")
            return {name: (item.shape, item.dtype.str) for name, item in datasets.items()}
    # A TypeError means a kind of number that numpy does not know.
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError("it is no whole HDF5 file") from error


def _walk(file: h5py.File, kinds: str) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield all data sets by name, after checking each of them."""
    groups, objects = [("", file)], 0
    while groups:
        path, group = groups.pop()
        for key in group:
            name = f"{path}{key}"
            objects += 1
            if objects > _MOST_OBJECTS:
                raise ValueError(f"it has more than {_MOST_OBJECTS} groups and data sets")
            # Resolve a link only after checking that it does not lead elsewhere.
            if group.get(key, getclass=True, getlink=True) is not h5py.HardLink:
                raise ValueError(f"{_quote(name)} is a link")
            item = group[key]
            if isinstance(item, h5py.Group):
                groups.append((f"{name}/", item))
            else:
                _check_dataset(name, item, kinds)
                yield name, item


def _check_dataset(name: str, item: object, kinds: str) -> None:
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in kinds or item.shape is None:
        what = "floating-point numbers" if kinds == "f" else "numbers"
        raise ValueError(f"{_quote(name)} holds no {what}")
    if item.external or item.is_virtual:
        raise ValueError(f"the data of {_quote(name)} lies outside of the file")
    # Keras writes contiguous data; only chunked data can be compressed.
    if item.chunks:
        raise ValueError(f"{_quote(name)} is written in chunks")


def _quote(name: str) -> str:
    return repr(name if len(name) <= 80 else f"…{name[-80:]}")

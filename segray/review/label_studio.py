"""Label Studio: tasks with the masks as predictions, and the labelling interface for them.

https://labelstud.io/guide/predictions, https://labelstud.io/guide/storage#Local-storage
"""

import json
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from segray.pixels.labels import Labels
from segray.review.chosen import Chosen, run_lengths
from segray.storage.files import write_bytes
from segray.storage.uri import is_local, join_uri

#: The files of this format.
TASKS, INTERFACE = "tasks.json", "interface.xml"

# The numbers of bits that hold the length of a run, of which two bits of each run choose one.
_SIZES = (3, 4, 8, 16)
_WORD = 8  # bits of a value


class LabelStudio:
    """Writes ``tasks.json`` and ``interface.xml``.

    Args:
        output: the absolute URI of the output folder.
        labels: the classes.
    """

    def __init__(self, output: str, labels: Labels) -> None:
        self._output, self._labels = output, labels
        self._tasks: list[str] = []  # as JSON, which is smaller than lists of numbers

    def add(self, chosen: Chosen) -> None:
        """Add an image."""
        height, width = chosen.mask.shape
        result = [
            {
                "id": f"{chosen.name}-{class_id}",
                "type": "brushlabels",
                "from_name": "mask",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": list(encode_brush(chosen.mask == class_id)),
                    "brushlabels": [self._labels.names[class_id]],
                },
            }
            for class_id in np.unique(chosen.mask).tolist()
        ]
        prediction = {"score": chosen.expected_iou, "result": result}
        task = {"data": {"image": _locate(chosen.uri)}, "predictions": [prediction]}
        self._tasks.append(json.dumps(task, separators=(",", ":")))

    def finish(self) -> list[str]:
        """Write the files, and return their names."""
        write_bytes(join_uri(self._output, TASKS), f"[{','.join(self._tasks)}]".encode())
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
        brush = ElementTree.SubElement(view, "BrushLabels", name="mask", toName="image")
        for name, colour in zip(self._labels.names, self._labels.hex_palette, strict=True):
            ElementTree.SubElement(brush, "Label", value=name, background=colour)
        ElementTree.indent(view)
        write_bytes(join_uri(self._output, INTERFACE), ElementTree.tostring(view))
        return [TASKS, INTERFACE]


def _locate(uri: str) -> str:
    """Return what Label Studio finds an image by; its document root for local files is /."""
    return f"/data/local-files/?d={quote(uri.lstrip('/'))}" if is_local(uri) else uri


def encode_brush(there: npt.NDArray[np.bool_]) -> bytes:
    """Encode a mask as Label Studio's brush: the RGBA of each pixel, packed by thi.ng/rle-pack.

    The pack has 32 bits for the number of values, 5 for the size of a value, 4 for each of the four
    sizes of lengths (all less 1), and then for each run a bit 1, two bits for the size of its
    length, the length less 1, and the value: https://github.com/thi-ng/umbrella, packages/rle-pack.

    Args:
        there: bool [H, W].
    """
    lengths = 4 * run_lengths(there.ravel())
    words = [f"{4 * there.size:032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for number, length in enumerate(lengths.tolist()):
        value = 255 * (number % 2)
        for start in range(0, length, 1 << _SIZES[-1]):
            part = min(length - start, 1 << _SIZES[-1])
            choice = next(i for i, size in enumerate(_SIZES) if part <= 1 << size)
            words.append(f"1{choice:02b}{part - 1:0{_SIZES[choice]}b}{value:0{_WORD}b}")
    bits = "".join(words)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")

"""CVAT: the masks in "CVAT for images 1.1", to be uploaded as the annotations of a task.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

import posixpath
from xml.etree import ElementTree

import numpy as np

from segray.pixels.labels import Labels
from segray.review.chosen import Chosen, run_lengths
from segray.storage.files import write_bytes
from segray.storage.uri import join_uri

#: The file of this format.
ANNOTATIONS = "annotations.xml"


class Cvat:
    """Writes ``annotations.xml``, with a mask for each class of an image.

    CVAT knows images by their file names.

    Args:
        output: the absolute URI of the output folder.
        labels: the classes.
    """

    def __init__(self, output: str, labels: Labels) -> None:
        self._output, self._labels = output, labels
        self._root = ElementTree.Element("annotations")
        ElementTree.SubElement(self._root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(self._root, "meta"), "task")
        listed = ElementTree.SubElement(task, "labels")
        for name, colour in zip(labels.names, labels.hex_palette, strict=True):
            label = ElementTree.SubElement(listed, "label")
            ElementTree.SubElement(label, "name").text = name
            ElementTree.SubElement(label, "color").text = colour
            ElementTree.SubElement(label, "type").text = "mask"
            ElementTree.SubElement(label, "attributes")
        self._count = 0

    def add(self, chosen: Chosen) -> None:
        """Add an image."""
        height, width = chosen.mask.shape
        image = ElementTree.SubElement(
            self._root,
            "image",
            id=str(self._count),
            name=posixpath.basename(chosen.uri),
            width=str(width),
            height=str(height),
        )
        self._count += 1
        for class_id in np.unique(chosen.mask).tolist():
            there = chosen.mask == class_id
            rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
            top, left = int(rows[0]), int(columns[0])
            box = there[top : rows[-1] + 1, left : columns[-1] + 1]
            ElementTree.SubElement(
                image,
                "mask",
                label=self._labels.names[class_id],
                source="auto",
                occluded="0",
                rle=", ".join(map(str, run_lengths(box.ravel()).tolist())),
                left=str(left),
                top=str(top),
                width=str(box.shape[1]),
                height=str(box.shape[0]),
                z_order="0",
            )

    def finish(self) -> list[str]:
        """Write the file, and return its name."""
        ElementTree.indent(self._root)
        content = ElementTree.tostring(self._root, encoding="utf-8", xml_declaration=True)
        write_bytes(join_uri(self._output, ANNOTATIONS), content)
        return [ANNOTATIONS]

"""CVAT: the masks in "CVAT for images 1.1", to be uploaded as the annotations of a task.

CVAT knows images by their names: those of the files, or below a folder, if it has a folder.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

import posixpath
from xml.etree import ElementTree

import numpy as np

from segray.pixels.labels import Labels
from segray.review.chosen import Chosen, run_lengths
from segray.storage.files import write_bytes
from segray.storage.uri import join_uri

# CVAT gives an image whose name it does not know to the frame with the number of its id. No task
# has so many frames, so CVAT refuses it instead.
_FIRST_ID = 10**9

#: The file of this format.
ANNOTATIONS = "annotations.xml"


class Cvat:
    """Writes ``annotations.xml``, with a mask for each class of an image.

    Images go by their file names; if two have the same, by their paths below the folder that all
    of them are in.

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
        self._images: list[tuple[str, ElementTree.Element]] = []

    def add(self, chosen: Chosen) -> None:
        """Add an image."""
        height, width = chosen.mask.shape
        image = ElementTree.SubElement(
            self._root,
            "image",
            id=str(_FIRST_ID + len(self._images)),
            width=str(width),
            height=str(height),
        )
        self._images.append((chosen.uri, image))
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
        uris = [uri for uri, _ in self._images]
        root = ""
        if len({posixpath.basename(uri) for uri in uris}) < len(uris):
            root = posixpath.commonprefix(uris).rpartition("/")[0] + "/"
        for uri, image in self._images:
            image.set("name", uri.removeprefix(root) if root else posixpath.basename(uri))
        ElementTree.indent(self._root)
        content = ElementTree.tostring(self._root, encoding="utf-8", xml_declaration=True)
        write_bytes(join_uri(self._output, ANNOTATIONS), content)
        return [ANNOTATIONS]

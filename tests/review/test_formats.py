"""The formats of a review, read as their tools read them."""

import dataclasses
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

from segray.review.chosen import Chosen, run_lengths
from segray.review.cvat import Cvat
from segray.review.label_studio import LabelStudio, encode_brush
from tests.segmentations import LABELS, draw_mask


def chosen(seed: int) -> Chosen:
    return Chosen(seed - 5, f"s3://bucket/images/{seed}.jpg", draw_mask(40, 60, seed), 0.25)


def decode_brush(content: bytes) -> npt.NDArray[np.uint8]:
    """As https://github.com/thi-ng/umbrella, packages/rle-pack, decodes it."""
    bits, place = "".join(f"{byte:08b}" for byte in content), 0

    def read(size: int) -> int:
        nonlocal place
        place += size
        return int(bits[place - size : place], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    assert len(bits) - place < 8
    return np.array(values, dtype=np.uint8)


@pytest.mark.parametrize(
    "there",
    [
        np.zeros((3, 5), bool),
        np.ones((3, 5), bool),
        np.eye(20, 33, dtype=bool),
        np.arange(300 * 400).reshape(300, 400) > 70_000,
        np.random.default_rng(0).random((31, 47)) < 0.5,
    ],
    ids=["none", "all", "diagonal", "long runs", "noise"],
)
def test_a_brush_has_the_pixels_of_the_mask(there: npt.NDArray[np.bool_]) -> None:
    pixels = decode_brush(encode_brush(there)).reshape(*there.shape, 4)
    np.testing.assert_array_equal(pixels, np.where(there, 255, 0)[..., None].repeat(4, axis=-1))


def test_run_lengths_begin_with_what_is_false() -> None:
    assert run_lengths(np.array([False, True, True, False])).tolist() == [1, 2, 1]
    assert run_lengths(np.array([True, False])).tolist() == [0, 1, 1]
    assert run_lengths(np.array([True])).tolist() == [0, 1]
    assert run_lengths(np.array([False])).tolist() == [1]


def test_label_studio_gets_a_prediction_for_each_class_of_an_image(tmp_path: Path) -> None:
    images = [chosen(seed) for seed in (1, 2, 3)]
    writer = LabelStudio(str(tmp_path), LABELS)
    for image in images:
        writer.add(image)
    writer.finish()

    tasks = json.loads((tmp_path / "tasks.json").read_text())
    interface = ElementTree.parse(tmp_path / "interface.xml")
    labels = [label.attrib["value"] for label in interface.iter("Label")]
    assert labels == list(LABELS.names)
    assert [task["data"]["image"] for task in tasks] == [image.uri for image in images]
    for task, image in zip(tasks, images, strict=True):
        [prediction] = task["predictions"]
        mask = np.full(image.mask.shape, 99, dtype=np.uint8)
        for result in prediction["result"]:
            assert (result["original_height"], result["original_width"]) == mask.shape
            pixels = decode_brush(bytes(result["value"]["rle"])).reshape(*mask.shape, 4)
            mask[pixels[..., 3] > 0] = labels.index(result["value"]["brushlabels"][0])
        np.testing.assert_array_equal(mask, image.mask)


def test_cvat_gets_a_mask_for_each_class_of_an_image(tmp_path: Path) -> None:
    images = [chosen(seed) for seed in (1, 2, 3)]
    writer = Cvat(str(tmp_path), LABELS)
    for image in images:
        writer.add(image)
    writer.finish()

    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    assert [name.text for name in root.iterfind("meta/task/labels/label/name")] == list(
        LABELS.names
    )
    for element, image in zip(root.iterfind("image"), images, strict=True):
        assert element.attrib["name"] == image.uri.rpartition("/")[2]
        # CVAT would give an image that it does not know by name to the frame with this number.
        assert int(element.attrib["id"]) > 10**8
        mask = np.full(image.mask.shape, 99, dtype=np.uint8)
        for part in element.iterfind("mask"):
            lengths = [int(word) for word in part.attrib["rle"].split(",")]
            top, left, height, width = (
                int(part.attrib[name]) for name in ("top", "left", "height", "width")
            )
            flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
            box = mask[top : top + height, left : left + width]
            box[flat.reshape(height, width)] = LABELS.names.index(part.attrib["label"])
        np.testing.assert_array_equal(mask, image.mask)


def test_label_studio_is_told_where_local_images_are(tmp_path: Path) -> None:
    """A URL of its own server, with the path below its document root, /."""
    writer = LabelStudio(str(tmp_path), LABELS)
    writer.add(dataclasses.replace(chosen(1), uri="/photos/a b.jpg"))
    writer.finish()
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    assert parse_qs(urlsplit(task["data"]["image"]).query) == {"d": ["photos/a b.jpg"]}
    assert urlsplit(task["data"]["image"]).path == "/data/local-files/"

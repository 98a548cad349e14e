import hashlib
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from segray.errors import InputError
from segray.model.bundle import DESCRIPTION, ONNX, WEIGHTS, open_bundle, write_bundle
from segray.pixels.labels import Labels
from segray.storage.files import child_names, read_bytes
from tests.support import FRAME, IMAGE_SIZE, RECORD, square


def read_description(uri: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(read_bytes(f"{uri}/{DESCRIPTION}"))
    return document


def test_reads_back_what_was_written(bundle_uri: str, labels: Labels) -> None:
    bundle = open_bundle(bundle_uri, [WEIGHTS, ONNX])

    assert (bundle.uri, bundle.labels) == (bundle_uri, labels)
    assert bundle.frame == FRAME
    for name in (WEIGHTS, ONNX):
        assert bundle.files[name] == Path(bundle_uri, name).read_bytes()
    assert child_names(bundle_uri) == sorted([DESCRIPTION, WEIGHTS, ONNX])


def test_description_keeps_the_record_and_what_readers_need(
    bundle_uri: str, labels: Labels
) -> None:
    document = read_description(bundle_uri)

    assert {key: document[key] for key in RECORD} == RECORD
    assert document["labels"] == {
        "names": ["pet", "background", "border"],
        "values": [1, 2, 3],
        "ignored": [255],
        "coloured": False,
        "others_ignored": False,
    }
    assert [tuple(colour) for colour in document["palette"]] == list(labels.palette)
    assert document["architecture"]["classes"] == 3
    assert document["versions"]["keras"] == keras.__version__


def test_digest_is_of_the_description(bundle_uri: str) -> None:
    text = Path(bundle_uri, DESCRIPTION).read_bytes()

    assert open_bundle(bundle_uri, []).digest == hashlib.sha256(text).hexdigest()[:16]


def test_another_model_in_s3_has_another_digest_and_no_secrets(
    s3: Callable[[str], str], bundle_uri: str, network: keras.Model, labels: Labels
) -> None:
    uri = f"{s3('model-bundles')}/run/model"
    other = keras.models.clone_model(network)
    write_bundle(uri + "/", other, square(3, IMAGE_SIZE), labels, RECORD, FRAME)

    bundle = open_bundle(uri, [WEIGHTS, ONNX])

    text = read_bytes(f"{uri}/{DESCRIPTION}").decode()
    assert (bundle.uri, bundle.labels) == (uri, labels)
    assert bundle.files[ONNX] == read_bytes(f"{uri}/{ONNX}")
    assert bundle.digest != open_bundle(bundle_uri, []).digest
    for leak in (
        "test-key",
        "test-secret",
        "model-bundles",
        "127.0.0.1",
        socket.gethostname(),
        "/tmp",
    ):
        assert leak not in text
    assert str(Path.home()) not in text


def test_reads_the_labels_of_coloured_masks_and_those_from_before_there_were_any(
    bundle_uri: str, labels: Labels, tmp_path: Path
) -> None:
    document = read_description(bundle_uri)
    del document["labels"]["coloured"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(document))
    assert open_bundle(str(tmp_path), []).labels == labels

    coloured = Labels.parse(["pet=#804080", "background=#000000", "border=#ffffff"])
    document["labels"] = coloured.to_json()
    (tmp_path / DESCRIPTION).write_text(json.dumps(document))
    assert open_bundle(str(tmp_path), []).labels == coloured


def test_a_bundle_without_encoder_has_a_mobilenet(bundle_uri: str, tmp_path: Path) -> None:
    document = read_description(bundle_uri)
    document["format_version"] = 3
    del document["architecture"]["encoder"]
    (tmp_path / DESCRIPTION).write_text(json.dumps(document))

    assert open_bundle(str(tmp_path), []).architecture == square(3, IMAGE_SIZE)


def test_a_bundle_of_format_2_has_the_tutorials_decoder_and_squashes(
    bundle_uri: str, tmp_path: Path
) -> None:
    document = read_description(bundle_uri)
    document["format_version"] = 2
    for name in ("encoder", "decoder", "fit", "scale"):
        del document["architecture"][name]
    document["architecture"]["name"] = "mobilenetv2-unet"
    (tmp_path / DESCRIPTION).write_text(json.dumps(document))

    bundle = open_bundle(str(tmp_path), [])

    assert bundle.architecture == square(3, IMAGE_SIZE, decoder="tutorial")
    assert bundle.fit == "squash"


@pytest.mark.parametrize("name", [WEIGHTS, ONNX])
def test_reads_no_file_but_the_ones_asked_for(name: str, bundle_uri: str, tmp_path: Path) -> None:
    for file in (DESCRIPTION, name):
        shutil.copy(Path(bundle_uri, file), tmp_path)

    assert set(open_bundle(str(tmp_path), [name]).files) == {name}


def test_refuses_a_file_that_is_missing(bundle_uri: str, tmp_path: Path) -> None:
    shutil.copy(Path(bundle_uri, DESCRIPTION), tmp_path)

    with pytest.raises(InputError, match=f"^cannot read {tmp_path / ONNX}: no such file"):
        open_bundle(str(tmp_path), [ONNX])


@pytest.mark.parametrize("damage", ["changed", "truncated", "emptied"])
def test_refuses_a_damaged_file(damage: str, bundle_uri: str, tmp_path: Path) -> None:
    shutil.copy(Path(bundle_uri, DESCRIPTION), tmp_path)
    content = Path(bundle_uri, ONNX).read_bytes()
    damaged = {"changed": b"\0" + content[1:], "truncated": content[:-1], "emptied": b""}[damage]
    Path(tmp_path, ONNX).write_bytes(damaged)

    with pytest.raises(InputError, match=rf"^{tmp_path / ONNX} is damaged[^\n]*copy the bundle"):
        open_bundle(str(tmp_path), [ONNX])


@pytest.mark.parametrize("content", [{}, {WEIGHTS: b"half a bundle"}], ids=len)
def test_refuses_a_folder_without_a_description(content: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in content.items():
        Path(tmp_path, name).write_bytes(data)

    with pytest.raises(InputError, match=rf"^{tmp_path} holds no model \(model.json is missing\)"):
        open_bundle(str(tmp_path), [WEIGHTS])


def test_refuses_a_prefix_without_a_description(s3: Callable[[str], str]) -> None:
    uri = f"{s3('model-none')}/run"

    with pytest.raises(InputError, match=f"^{uri} holds no model"):
        open_bundle(uri, [WEIGHTS])


def refusal(folder: Path, content: bytes) -> str:
    """What a user is told of a description with this content."""
    (folder / DESCRIPTION).write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_bundle(str(folder), [WEIGHTS, ONNX])
    message = str(caught.value)
    assert message.startswith(str(folder / DESCRIPTION)), message
    assert len(message) < len(str(folder)) + 400
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\0",
        b"{",
        b"<html>\n</html>",
        b"null",
        b"7",
        b'"text"',
        b"[]",
        b"{}",
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:8]),
)
def test_refuses_what_is_no_description(content: bytes, tmp_path: Path) -> None:
    assert "is no model description" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format_version", 5),
        ("format_version", "1\n2"),
        ("architecture.encoder", "DeepLab"),
        ("architecture.encoder", "MobileNetV2\n"),
        ("architecture.encoder", "x" * 100_000),
        ("architecture.encoder", None),
    ],
)
def test_refuses_a_model_of_another_version_of_segray(
    path: str, value: Any, bundle_uri: str, tmp_path: Path
) -> None:
    document = changed(read_description(bundle_uri), path, value)

    message = refusal(tmp_path, json.dumps(document).encode())

    assert "use the version of segray that wrote it" in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("architecture", "unet"),
        ("architecture.encoder", ["MobileNetV2"]),
        ("architecture", None),
        ("architecture.image_size", 0),
        ("architecture.image_size", -32),
        ("architecture.image_size", 100),
        ("architecture.image_size", 32 * 10**9),
        ("architecture.image_size", float("inf")),
        ("architecture.image_size", 64.0),
        ("architecture.image_size", "64"),
        ("architecture.image_size", [64]),
        ("architecture.image_size", [64, 100]),
        ("architecture.image_size", [64, 64, 3]),
        ("architecture.image_size", True),
        ("architecture.decoder", "wide"),
        ("architecture.decoder", ["slim"]),
        ("architecture.decoder", None),
        ("architecture.fit", "stretch"),
        ("architecture.fit", 1),
        ("architecture.scale", 0),
        ("architecture.scale", 17),
        ("architecture.scale", "1"),
        ("architecture.scale", True),
        ("architecture.scale", float("nan")),
        ("usual_shares", [0.5, 0.5]),
        ("usual_shares", [0.5, 0.5, 0]),
        ("usual_shares", [0.5, 0.5, "0.1"]),
        ("usual_shares", 0.1),
        ("iou_exponent", 0),
        ("iou_exponent", 17),
        ("iou_exponent", "1"),
        ("iou_exponent", True),
        ("iou_exponent", float("nan")),
        ("architecture.image_size", None),
        ("architecture.classes", 4),
        ("architecture.classes", "3"),
        ("labels", ["pet", "background", "border"]),
        ("labels", None),
        ("labels.names", ["pet"]),
        ("labels.names", ["pet", "background", 3]),
        ("labels.names", ["pet", "background", "pet"]),
        ("labels.names", ["pet", "background", "two\nlines"]),
        ("labels.names", 3),
        ("labels.values", [1, 2, "3"]),
        ("labels.values", [1, 2]),
        ("labels.values", [1, 2, -3]),
        ("labels.ignored", None),
        ("architecture.classes", 10**9),
        ("architecture.input_range", [float("nan"), 1.0]),
        ("architecture.input_range", [-1.0, float("inf")]),
        ("architecture.input_range", [1.0, -1.0]),
        ("architecture.input_range", ["-1", "1"]),
        ("architecture.input_range", [False, True]),
        ("architecture.input_range", [-1.0]),
        ("architecture.input_range", [10**400, 10**401]),
        ("architecture.input_range", 1),
        ("architecture.even_upsampling", 1),
        ("labels.values", [1, 2, 3.5]),
        ("labels.values", [1, 2, True]),
        ("labels.values", [1, 2, float("nan")]),
        ("labels.ignored", [254.5]),
        ("labels.names", ["pet", "background", "x" * 100_000]),
        ("labels.coloured", "no"),
        ("labels.coloured", None),
        ("sha256", "0" * 64),
        ("sha256", ["model.onnx"]),
        ("sha256", {WEIGHTS: "0" * 64}),
    ],
)
def test_refuses_a_description_with_a_wrong_entry(
    path: str, value: Any, bundle_uri: str, tmp_path: Path
) -> None:
    document = changed(read_description(bundle_uri), path, value)

    assert "is no model description" in refusal(tmp_path, json.dumps(document).encode())


@pytest.mark.parametrize("path", ["format_version", "architecture", "labels", "sha256"])
def test_refuses_a_description_with_a_missing_entry(
    path: str, bundle_uri: str, tmp_path: Path
) -> None:
    document = read_description(bundle_uri)
    del document[path]

    assert path in refusal(tmp_path, json.dumps(document).encode())


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    entry = document
    for parent in parents:
        entry = entry[parent]
    entry[last] = value
    return document

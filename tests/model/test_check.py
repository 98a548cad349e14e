"""A bundle from somebody else: refused in one line before anything of it runs."""

from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import segray
from segray.errors import InputError
from segray.model.architecture import Architecture
from segray.model.bundle import DESCRIPTION, ONNX, WEIGHTS, open_bundle, write_bundle
from segray.model.check import most_bytes
from segray.model.predictor import Engine
from segray.model.unet import build_unet
from segray.pixels.framing import Frame
from segray.pixels.labels import Labels
from segray.storage.files import read_bytes, write_bytes
from tests.hostile import GRAPHS, SECRET, WEIGHT_FILES, forge, forge_graph, forge_weights
from tests.support import IMAGE_SIZE, draw_picture, square

# What a user is told of each kind, beside the file's name.
GRAPH_REASONS = {
    "data outside": "a tensor's data lies outside of the file",
    "data outside, in an attribute": "has the entry t",
    "data outside, in a sparse tensor": "has the entry sparse_initializer",
    "data outside, in a branch": "has the entry g",
    "an unknown operator": "the operator 'Frobnicate'",
    "an operator of another domain": "the operator 'Gelu'",
    "an operator that the network lacks": "the operator 'Sin'",
    "a function": "has the entry functions",
    "settings": "has the entry metadata_props",
    "another version of the format": "its format has the version 999",
    "a terabyte of zeros": "the operator 'ConstantOfShape'",
    "a terabyte of edges": "is not in -1 to 16384",
    "a terabyte around a constant": "a Pad gives no images",
    "a terabyte of doublings": "numbers an image",
    "many values at once": "which is too much",
    "hours of pooling": "which is too much",
    "a product that takes hours": "the constant 'long' is not of the size of its data",
    "a terabyte of weights": "the constant 'large' is not of the size of its data",
    "two outputs": "it has 2 outputs",
    "another network": "multiplications and not ",
}
WEIGHTS_REASONS = {
    "data outside": "lies outside of the file",
    "a soft link": "is a link",
    "an external link": "is a link",
    "a virtual data set": "lies outside of the file",
    "a terabyte, never written": "is written in chunks",
    "a terabyte in one piece": "larger than the file",
    "compression": "is written in chunks",
    "references": "holds no floating-point numbers",
    "times": "it is no whole HDF5 file",
    "text": "holds no floating-point numbers",
    "a circle": "it has more than 10000 groups and data sets",
    "numbers of another kind": "vars/1' is <f8",
    "another shape": "weights and not ",
    "a weight too many": "weights and not ",
    "a weight too few": "weights and not ",
}


def refusal(uri: str, engine: Engine, name: str, reason: str) -> None:
    """Check what a notebook is told of a bundle."""
    with pytest.raises(InputError) as caught:
        segray.load(uri, engine)
    message = str(caught.value)
    assert message.startswith(f"{uri}/{name} is not the network that {DESCRIPTION} describes: ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", GRAPHS)
def test_refuses_a_foreign_graph(
    kind: str, bundle_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(SECRET).write_bytes(bytes(64))
    uri = forge_graph(bundle_uri, tmp_path / "model", kind)

    refusal(uri, "onnx", ONNX, GRAPH_REASONS[kind])


@pytest.mark.parametrize("kind", WEIGHT_FILES)
def test_refuses_a_foreign_weights_file(
    kind: str, bundle_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File(SECRET, "w") as file:
        file["data"] = np.zeros(3, np.float32)
    uri = forge_weights(bundle_uri, tmp_path / "model", kind)

    refusal(uri, "tensorflow", WEIGHTS, WEIGHTS_REASONS[kind])


@pytest.mark.parametrize(
    ("engine", "name", "reason"),
    [("onnx", ONNX, "it is no ONNX model"), ("tensorflow", WEIGHTS, "it is no whole HDF5 file")],
)
@pytest.mark.parametrize("content", [b"", b"<html>\n</html>", b"\x89HDF\r\n\x1a\n"], ids=len)
def test_refuses_what_is_no_network_at_all(
    content: bytes, engine: Engine, name: str, reason: str, bundle_uri: str, tmp_path: Path
) -> None:
    uri = forge(bundle_uri, tmp_path / "model", name, content)

    refusal(uri, engine, name, reason if content or name == WEIGHTS else "it has 0 inputs")


@pytest.mark.parametrize("where", ["folder", "bucket"])
@pytest.mark.parametrize("name", [DESCRIPTION, ONNX, WEIGHTS])
def test_reads_no_more_of_a_file_than_it_can_be_large(
    name: str, where: str, bundle_uri: str, tmp_path: Path, s3: Callable[[str], str]
) -> None:
    most = 1 << 20 if name == DESCRIPTION else most_bytes(square(3, IMAGE_SIZE))
    large = b" " * (most + 1)
    uri = forge(bundle_uri, tmp_path / "model", ONNX if name == DESCRIPTION else name, large)
    if name == DESCRIPTION:
        Path(uri, name).write_bytes(large)
    if where == "bucket":
        folder, uri = uri, f"{s3('model-large-' + name.lower().replace('.', '-'))}/model"
        for path in Path(folder).iterdir():
            write_bytes(f"{uri}/{path.name}", path.read_bytes())

    with pytest.raises(InputError, match=rf"^cannot read {uri}/{name}: [^\n]*limit of {most}"):
        open_bundle(uri, [WEIGHTS] if name == WEIGHTS else [ONNX])


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(2, 32, 32, input_range=(0.0, 255.0)),
        Architecture(30, 96, 96, decoder="tutorial", input_range=(0.0, 1.0), even_upsampling=False),
        Architecture(3, 32, 96),
        Architecture(3, 128, 32),
    ],
)
def test_takes_what_segray_writes(architecture: Architecture, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    classes, height, width = architecture.classes, architecture.height, architecture.width
    network = build_unet(architecture)
    if height == width == 32:
        # As trained: the export leaves out what adds nothing.
        network(np.stack([draw_picture(32, 32, seed) for seed in range(4)]), training=True)
    labels = Labels(tuple(f"class_{i}" for i in range(classes)), tuple(range(classes)))
    write_bundle(str(tmp_path), network, architecture, labels, {}, Frame(height, width))

    bundle = open_bundle(str(tmp_path), [WEIGHTS, ONNX])

    assert bundle.architecture == architecture
    mask = segray.load(str(tmp_path)).segment(draw_picture(50, 40))
    assert mask.shape == (50, 40)


def test_a_foreign_graph_is_nothing_to_who_reads_the_weights(
    bundle_uri: str, tmp_path: Path
) -> None:
    uri = forge_graph(bundle_uri, tmp_path / "model", "another network")

    assert open_bundle(uri, [WEIGHTS]).files[WEIGHTS] == read_bytes(f"{bundle_uri}/{WEIGHTS}")

"""Model bundles as somebody who means ill would make them: whole, with digests that fit.

Each function changes what a bundle's file holds; `forge` writes the bundle with it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segray.model.bundle import DESCRIPTION, ONNX, WEIGHTS

#: The name of the file that bundles point at, in the folder that a job runs in.
SECRET = "secret"

#: The weights of the logits in each file: their bias, and its shape for three classes.
BIAS = "layers/conv2d_transpose_4/vars/1"
_BIAS_SHAPE = (3,)
_TERABYTE = 1 << 38  # of float32


def forge(bundle_uri: str, folder: Path, name: str, content: bytes) -> str:
    """Copy a bundle into a new folder, with another content of a file and its sha256."""
    shutil.copytree(bundle_uri, folder)
    (folder / name).write_bytes(content)
    document = json.loads((folder / DESCRIPTION).read_text())
    document["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / DESCRIPTION).write_text(json.dumps(document))
    return str(folder)


def forge_graph(bundle_uri: str, folder: Path, kind: str) -> str:
    """Write a bundle whose ``model.onnx`` is of a kind of `GRAPHS`."""
    model = onnx.load_from_string(Path(bundle_uri, ONNX).read_bytes())
    model = GRAPHS[kind](model) or model
    return forge(bundle_uri, folder, ONNX, model.SerializeToString())


def forge_weights(bundle_uri: str, folder: Path, kind: str) -> str:
    """Write a bundle whose ``model.weights.h5`` is of a kind of `WEIGHT_FILES`."""
    path = folder.with_suffix(".h5")
    shutil.copy(Path(bundle_uri, WEIGHTS), path)
    with h5py.File(path, "r+") as file:
        WEIGHT_FILES[kind](file)
    content = path.read_bytes()
    path.unlink()
    return forge(bundle_uri, folder, WEIGHTS, content)


def _send_outside(tensor: onnx.TensorProto) -> None:
    """Let a tensor's values lie in the file `SECRET`."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    length = 4 * int(np.prod(tensor.dims))
    for key, value in (("location", SECRET), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _outside(model: onnx.ModelProto) -> None:
    """Adds what lies in the file to the logits, so that masks show it."""
    tensor = onnx.TensorProto(name="added", data_type=TensorProto.FLOAT, dims=_BIAS_SHAPE)
    _send_outside(tensor)
    model.graph.initializer.append(tensor)
    logits = model.graph.output[0].name
    _after(model, helper.make_node("Add", ["before", "added"], [logits]))


def _outside_in_an_attribute(model: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto(name="value", data_type=TensorProto.FLOAT, dims=_BIAS_SHAPE)
    _send_outside(tensor)
    _after(model, helper.make_node("Constant", [], ["added"], value=tensor), "Add")


def _outside_in_a_sparse_tensor(model: onnx.ModelProto) -> None:
    values = onnx.TensorProto(name="sparse", data_type=TensorProto.FLOAT, dims=[1])
    _send_outside(values)
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, indices, list(_BIAS_SHAPE))
    )


def _outside_in_a_branch(model: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto(name="inner", data_type=TensorProto.FLOAT, dims=_BIAS_SHAPE)
    _send_outside(tensor)
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, _BIAS_SHAPE)
    branch = helper.make_graph([], "branch", [], [output], [tensor])
    condition = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(condition)
    node = helper.make_node("If", ["condition"], ["added"], then_branch=branch, else_branch=branch)
    _after(model, node, "Add")


def _after(model: onnx.ModelProto, node: onnx.NodeProto, joining: str = "") -> None:
    """Put a node behind the logits, or what it gives together with them."""
    logits = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(node)
    if joining:
        model.graph.node.append(helper.make_node(joining, ["before", node.output[0]], [logits]))


def _behind(operator: str, **options: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        logits = model.graph.output[0].name
        _after(model, helper.make_node(operator, ["before"], [logits], **options))

    return change


def _terabyte_of_zeros(model: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([_TERABYTE]), "shape")
    model.graph.initializer.append(shape)
    _after(model, helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
    model.graph.node.append(helper.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0))
    logits = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Add", ["before", "most"], [logits]))


def _terabyte_of_edges(model: onnx.ModelProto) -> None:
    """Pads by a million pixels on each side, which the network has a node for."""
    node = next(node for node in model.graph.node if node.op_type == "Pad")
    pads = next(item for item in model.graph.initializer if item.name == node.input[1])
    wide = [0, 0, 10**6, 10**6, 0, 0, 10**6, 10**6]
    pads.raw_data = np.array(wide, "<i8").tobytes()


def _terabyte_around_a_constant(model: onnx.ModelProto) -> None:
    """Pads what is no image, and nobody looks at it: ONNX Runtime computes it as it loads."""
    constant = np.zeros((7919, 1, 1, 1), np.float32)
    pads = np.array([0, 0, 0, 0, 0, 0, 10_000, 10_000])
    model.graph.initializer.append(numpy_helper.from_array(constant, "constant"))
    model.graph.initializer.append(numpy_helper.from_array(pads, "pads"))
    model.graph.node.append(helper.make_node("Pad", ["constant", "pads"], ["padded"]))


def _hours_of_sizes(model: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto(name="long", data_type=TensorProto.FLOAT, dims=[127] * 1_000_000)
    model.graph.initializer.append(tensor)


def _terabyte_of_doublings(model: onnx.ModelProto) -> None:
    """The logits beside themselves, thirty times over."""
    model.graph.node[-1].output[0] = "logits_0"
    for i in range(30):
        names = [f"logits_{i}", f"logits_{i}"]
        model.graph.node.append(helper.make_node("Concat", names, [f"logits_{i + 1}"], axis=2))
    model.graph.node.append(
        helper.make_node(
            "AveragePool", ["logits_30"], [model.graph.output[0].name], kernel_shape=[1, 1]
        )
    )


def _many_values_at_once(model: onnx.ModelProto) -> None:
    """Hundreds of values that are all needed until the last one is there."""
    count, logits = 600, model.graph.output[0].name
    model.graph.node[-1].output[0] = "value_0"
    for i in range(count):
        model.graph.node.append(helper.make_node("Sigmoid", [f"value_{i}"], [f"value_{i + 1}"]))
    joined = f"value_{count}"
    for i in range(count - 1, -1, -1):
        name = f"sum_{i}" if i else logits
        model.graph.node.append(helper.make_node("Add", [joined, f"value_{i}"], [name]))
        joined = name


def _hours_of_pooling(model: onnx.ModelProto) -> None:
    count, logits = 900, model.graph.output[0].name
    model.graph.node[-1].output[0] = "pooled_0"
    for i in range(count):
        name = f"pooled_{i + 1}" if i < count - 1 else logits
        model.graph.node.append(
            helper.make_node(
                "MaxPool", [f"pooled_{i}"], [name], kernel_shape=[7, 7], pads=[3, 3, 3, 3]
            )
        )


def _terabyte_of_weights(model: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto(name="large", data_type=TensorProto.FLOAT, dims=[_TERABYTE])
    model.graph.initializer.append(tensor)


def _function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Relu", ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 15)]
    model.functions.append(helper.make_function("local", "F", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    _behind("F", domain="local")(model)


def _settings(model: onnx.ModelProto) -> None:
    """What ONNX Runtime takes its session's settings from, if its environment says so."""
    model.metadata_props.add(key="ort_config", value='{"session_options": {}}')


def _other_format(model: onnx.ModelProto) -> None:
    model.ir_version = 999


def _two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(
        helper.make_tensor_value_info(model.graph.node[3].output[0], TensorProto.FLOAT, None)
    )


def _other_network(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes the same images, gives logits of the same shape, and is a single convolution."""
    graph = model.graph
    kernel = np.eye(3, dtype=np.float32)[:, :, None, None]
    weights = numpy_helper.from_array(kernel, "w")
    nodes = [
        helper.make_node("Cast", [graph.input[0].name], ["a"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["b", "w"], ["c"]),
        helper.make_node("Transpose", ["c"], [graph.output[0].name], perm=[0, 2, 3, 1]),
    ]
    other = helper.make_graph(nodes, "g", graph.input, graph.output, [weights])
    return helper.make_model(other, opset_imports=model.opset_import, ir_version=8)


#: What can be done to a graph, by what it is called in tests.
GRAPHS: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto | None]] = {
    "data outside": _outside,
    "data outside, in an attribute": _outside_in_an_attribute,
    "data outside, in a sparse tensor": _outside_in_a_sparse_tensor,
    "data outside, in a branch": _outside_in_a_branch,
    "an unknown operator": _behind("Frobnicate"),
    "an operator of another domain": _behind("Gelu", domain="com.microsoft"),
    "an operator that the network lacks": _behind("Sin"),
    "a function": _function,
    "settings": _settings,
    "another version of the format": _other_format,
    "a terabyte of zeros": _terabyte_of_zeros,
    "a terabyte of edges": _terabyte_of_edges,
    "a terabyte around a constant": _terabyte_around_a_constant,
    "a terabyte of doublings": _terabyte_of_doublings,
    "many values at once": _many_values_at_once,
    "hours of pooling": _hours_of_pooling,
    "a product that takes hours": _hours_of_sizes,
    "a terabyte of weights": _terabyte_of_weights,
    "two outputs": _two_outputs,
    "another network": _other_network,
}


def _replace(file: h5py.File, **options: object) -> None:
    """Let the bias of the logits be another data set, of the same shape if not told otherwise."""
    del file[BIAS]
    file.create_dataset(BIAS, **{"shape": _BIAS_SHAPE, "dtype": "<f4", **options})


def _data_outside(file: h5py.File) -> None:
    _replace(file, external=[(os.fsencode(SECRET), 0, 4 * _BIAS_SHAPE[0])])


def _link(link: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[BIAS]
        file[BIAS] = link

    return change


def _virtual(file: h5py.File) -> None:
    del file[BIAS]
    layout = h5py.VirtualLayout(_BIAS_SHAPE, "<f4")
    layout[:] = h5py.VirtualSource(SECRET, "data", _BIAS_SHAPE)
    file.create_virtual_dataset(BIAS, layout)


def _references(file: h5py.File) -> None:
    _replace(file, dtype=h5py.ref_dtype)


def _time(file: h5py.File) -> None:
    """Numbers of a kind that numpy does not know."""
    del file[BIAS]
    space = h5py.h5s.create_simple(_BIAS_SHAPE)
    h5py.h5d.create(file.id, BIAS.encode(), h5py.h5t.UNIX_D32LE, space)


def _circle(file: h5py.File) -> None:
    file["layers/circle"] = file["layers"]


#: What can be done to a weights file, by what it is called in tests.
WEIGHT_FILES: dict[str, Callable[[h5py.File], None]] = {
    "data outside": _data_outside,
    "a soft link": _link(h5py.SoftLink("/layers/conv2d_transpose_3/vars/0")),
    "an external link": _link(h5py.ExternalLink(SECRET, "data")),
    "a virtual data set": _virtual,
    "a terabyte, never written": lambda file: _replace(file, shape=(_TERABYTE,), chunks=(1 << 20,)),
    "a terabyte in one piece": lambda file: _replace(file, shape=(_TERABYTE,)),
    "compression": lambda file: _replace(file, chunks=(3,), compression="gzip"),
    "references": _references,
    "times": _time,
    "text": lambda file: _replace(file, dtype=h5py.string_dtype()),
    "a circle": _circle,
    "numbers of another kind": lambda file: _replace(file, dtype="<f8"),
    "another shape": lambda file: _replace(file, shape=(4,)),
    "a weight too many": lambda file: file.create_dataset("layers/more/vars/0", (3,), "<f4"),
    "a weight too few": lambda file: file.pop(BIAS),
}

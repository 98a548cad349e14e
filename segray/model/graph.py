"""The graph of a bundle's ONNX file: verified to be the network before any of it runs.

Whoever writes the file also writes ``model.json``, so its sha256 proves nothing about its author.
And an ONNX graph can do much that a network does not need: read files beside it (as external data
of its tensors), request any amount of memory, and call any operator that ONNX Runtime is built
with.

The graph is not compared with a reference export: that would require TensorFlow, and depends on the
weights (a bias of zeros is left out), on the resolution and on tf2onnx. Instead, the properties
that all exports share are checked: the few operators, no fields of the format other than those that
tf2onnx writes, the input and the output, the size of everything that is computed, of each value and
of all together, and the multiplications of the convolutions.
"""

import math
import secrets
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, helper

from segray.model.architecture import Architecture
from segray.model.counts import count_multiplications

# The operators of the networks as tf2onnx writes them.
_OPERATORS = {
    "Add",
    "AveragePool",
    "Cast",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Erf",
    "GlobalAveragePool",
    "MaxPool",
    "Mul",
    "Neg",
    "Pad",
    "Reciprocal",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Transpose",
}
# The fields that a message of each type may have. Excluded are external data, functions, nested
# graphs, tensors that are not initializers, and session settings.
_ENTRIES = {
    "ModelProto": {"ir_version", "producer_name", "producer_version", "graph", "opset_import"},
    "OperatorSetIdProto": {"domain", "version"},
    "GraphProto": {"name", "doc_string", "node", "initializer", "input", "output"},
    "NodeProto": {"name", "op_type", "domain", "input", "output", "attribute"},
    "AttributeProto": {"name", "type", "i", "ints", "s"},
    "TensorProto": {"name", "dims", "data_type", "raw_data"},
    "ValueInfoProto": {"name", "type"},
    "TypeProto": {"tensor_type"},
    "Tensor": {"elem_type", "shape"},
    "TensorShapeProto": {"dim"},
    "Dimension": {"dim_value", "dim_param"},
}
_OUTSIDE = {"external_data", "data_location"}
# The opsets in which these operators mean the same to this check and to ONNX Runtime; tf2onnx
# writes 15.
_OPSETS = range(13, 22)
# The versions of the format that ONNX Runtime 1.26 reads; tf2onnx writes 8.
_FORMATS = range(7, 11)
# The largest network has fewer than 800.
_MOST_NODES = 2000
# Strides, sides of kernels, edges, axes and data types; not the groups of a convolution.
_ATTRIBUTES = range(8)
# Values of edges and shapes; -1 stands for the remaining size.
_CONSTANTS = (-1, 1 << 14)
# The numbers per pixel of an image that all nodes give together, those of a pooling multiplied by
# the pixels of its kernel; the largest network gives 1,788, and some ten for each class. They bound
# the memory, as all of them might be needed at once, and the time besides that of convolutions.
_WORK, _WORK_OF_CLASS = 2000, 20
# The least batch size for shape inference. The actual one is random, so that no file can anticipate
# it.
_LEAST_BATCH = 1 << 29


def check_graph(content: bytes, architecture: Architecture) -> None:
    """Verify that a file contains a network, without running any of it.

    Args:
        content: the content of the ONNX file.
        architecture: the network.

    Raises:
        ValueError: it does not; the message describes the difference in one line.
    """
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:
        # The exception is protobuf's, which is an internal of onnx.
        raise ValueError("it is no ONNX model") from error
    graph = model.graph
    if max(len(graph.node), len(graph.initializer)) > _MOST_NODES:
        raise ValueError(f"it has more than {_MOST_NODES} nodes or constants")
    _check_entries(model)
    for opset in model.opset_import:
        if not opset.domain and opset.version not in _OPSETS:
            raise ValueError(f"its operators are of the version {opset.version}")
    for node in graph.node:
        _check_node(node)
    for tensor in graph.initializer:
        _check_constant(tensor)
    _check_names(graph)
    _check_ends(graph, architecture)
    if model.ir_version not in _FORMATS:
        raise ValueError(f"its format has the version {model.ir_version}")
    classes, sides = architecture.classes, (architecture.height, architecture.width)
    batch = _LEAST_BATCH + secrets.randbelow(_LEAST_BATCH)
    shapes = _infer_shapes(model, [batch, *sides, 3])
    most = 2 * max(40, classes) * math.prod(sides)  # twice the network's largest
    for node in graph.node:
        _check_shape(node, shapes[node.output[0]], batch, most)
    work = sum(_pooled(node) * math.prod(shapes[node.output[0]][1:]) for node in graph.node)
    if work > (_WORK + _WORK_OF_CLASS * classes) * math.prod(sides):
        raise ValueError(f"its nodes give {work} numbers an image, which is too much")
    if shapes[graph.output[0].name] != [batch, *sides, classes]:
        raise ValueError("its output is of another shape")
    found, expected = _count_multiplications(graph, shapes), count_multiplications(architecture)
    if found != expected:
        raise ValueError(f"its convolutions have {found} multiplications and not {expected}")


def _check_entries(message: Any) -> None:
    """Refuse a message that has a field beyond those of its type, at any depth."""
    kind = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        if field.name in _OUTSIDE:
            raise ValueError("a tensor's data lies outside of the file")
        if field.name not in _ENTRIES[kind]:
            raise ValueError(f"its {kind} has the entry {field.name}")
        if field.message_type:
            for part in value if field.is_repeated else [value]:
                _check_entries(part)


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain or node.op_type not in _OPERATORS:
        raise ValueError(f"it has the operator {_quote(node.op_type)}")
    if len(node.output) != 1:
        raise ValueError(f"a {node.op_type} has {len(node.output)} outputs")
    for attribute in node.attribute:
        values = [] if attribute.name == "group" else [attribute.i, *attribute.ints]
        if any(value not in _ATTRIBUTES for value in values) or attribute.s not in (b"", b"NOTSET"):
            raise ValueError(f"a {node.op_type} has another {_quote(attribute.name)}")


def _check_constant(tensor: onnx.TensorProto) -> None:
    sizes: dict[int, int] = {TensorProto.FLOAT: 4, TensorProto.INT64: 8}
    if tensor.data_type not in sizes:
        raise ValueError(f"the constant {_quote(tensor.name)} is of another type")
    if (
        len(tensor.dims) > 4
        or min(tensor.dims, default=1) < 0
        or (math.prod(tensor.dims) * sizes[tensor.data_type] != len(tensor.raw_data))
    ):
        raise ValueError(f"the constant {_quote(tensor.name)} is not of the size of its data")
    if tensor.data_type == TensorProto.INT64:
        values = np.frombuffer(tensor.raw_data, "<i8")
        low, high = _CONSTANTS
        if ((values < low) | (values > high)).any():
            raise ValueError(f"the constant {_quote(tensor.name)} is not in {low} to {high}")


def _check_names(graph: onnx.GraphProto) -> None:
    """Refuse ambiguous names, which stand for two values."""
    names = [item.name for item in (*graph.input, *graph.initializer)]
    names += [node.output[0] for node in graph.node]
    if len(set(names)) < len(names) or "" in names:
        raise ValueError("two values in it have the same name")


def _check_ends(graph: onnx.GraphProto, architecture: Architecture) -> None:
    """Verify that the graph takes images and returns logits, for any batch size."""
    ends = (
        ("input", graph.input, TensorProto.UINT8, 3),
        ("output", graph.output, TensorProto.FLOAT, architecture.classes),
    )
    for what, infos, kind, channels in ends:
        if len(infos) != 1:
            raise ValueError(f"it has {len(infos)} {what}s")
        tensor = infos[0].type.tensor_type
        batch, *shape = [dimension.dim_value for dimension in tensor.shape.dim] or [1]
        expected = [architecture.height, architecture.width, channels]
        if (tensor.elem_type, batch, shape) != (kind, 0, expected):
            raise ValueError(f"its {what} is of another type or shape")


def _infer_shapes(model: onnx.ModelProto, images: list[int]) -> dict[str, list[int]]:
    """Infer the shape of each node's output as far as it is static; 0 where it is not.

    Args:
        model: the graph.
        images: the shape of its input.
    """
    graph = model.graph
    # Without the weights, because only their shapes are needed.
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = "graph"
    light.graph.node.extend(graph.node)
    light.graph.input.append(
        helper.make_tensor_value_info(graph.input[0].name, TensorProto.UINT8, images)
    )
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.INT64:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    light.graph.output.append(
        helper.make_tensor_value_info(graph.output[0].name, TensorProto.FLOAT, None)
    )
    try:
        inferred = onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True)
    except Exception as error:
        # onnx raises exceptions of its own, and those of its C++ code.
        raise ValueError("its nodes do not fit each other") from error
    shapes = {node.output[0]: [0] for node in graph.node}
    for info in (*inferred.graph.value_info, *inferred.graph.output):
        shapes[info.name] = [size.dim_value for size in info.type.tensor_type.shape.dim]
    return shapes


def _check_shape(node: onnx.NodeProto, shape: list[int], batch: int, most: int) -> None:
    # An image, or a number for each channel.
    if len(shape) not in (2, 4) or shape[0] != batch or min(shape) < 1:
        raise ValueError(f"a {node.op_type} gives no images")
    if math.prod(shape[1:]) > most:
        raise ValueError(
            f"a {node.op_type} gives {' x '.join(map(str, shape[1:]))} numbers an image"
        )


def _pooled(node: onnx.NodeProto) -> int:
    """Return the pixels of the kernel of a pooling; 1 for other nodes."""
    kernel = next((list(item.ints) for item in node.attribute if item.name == "kernel_shape"), [])
    return math.prod(kernel) if node.op_type.endswith("Pool") else 1


def _count_multiplications(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> int:
    """Count the multiplications of all convolutions for one image."""
    kernels = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if not node.op_type.startswith("Conv"):
            continue
        kernel = kernels.get(node.input[1], [])
        # Each value that a transposed convolution takes, and that any other gives, is multiplied by
        # the kernel of a filter.
        pixels = shapes.get(node.input[0] if node.op_type == "ConvTranspose" else node.output[0])
        if len(kernel) != 4 or not pixels or len(pixels) != 4:
            raise ValueError(f"a {node.op_type} has no kernel")
        total += math.prod(kernel) * math.prod(pixels[2:])
    return total


def _quote(name: str) -> str:
    return repr(name[:40])

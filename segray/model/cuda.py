"""The ONNX graph as CUDA runs it: ONNX Runtime's CUDA provider has no kernel for some of it."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

_ENDS = "cuda/ends"
_STARTS = "cuda/starts"
_AXES = "cuda/axes"


def fit_cuda(content: bytes) -> bytes:
    """Rewrite a network's ONNX file so that all of it runs on a GPU, with the same result.

    Keras' transposed convolutions come as ConvTranspose with ``pads`` of [0, 0, 1, 1]. ONNX
    Runtime's CUDA provider computes none whose padding is asymmetric and leaves these, 84 % of the
    multiplications, to the CPU. Without padding the output has a row and a column more, which a
    Slice takes off.

    Args:
        content: the file that `segray.model.graph.check_graph` has accepted.
    """
    model = onnx.load_from_string(content)
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        pads = next((a for a in node.attribute if a.name == "pads"), None)
        if node.op_type != "ConvTranspose" or pads is None or list(pads.ints) != [0, 0, 1, 1]:
            continue
        whole, cut = f"{node.output[0]}/whole", node.output[0]
        pads.ints[:] = [0, 0, 0, 0]
        node.output[0] = whole
        nodes.append(helper.make_node("Slice", [whole, _STARTS, _ENDS, _AXES], [cut]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name, values in ((_STARTS, [0, 0]), (_ENDS, [-1, -1]), (_AXES, [2, 3])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(values, "<i8"), name))
    fitted: bytes = model.SerializeToString()
    return fitted

"""Show that TensorFlow and ONNX Runtime compute on this machine's GPU, or say why they do not.

    python deploy/check_gpu.py

The driver (`nvidia-smi`) can be in order while one of the two does not find its CUDA libraries, and
then works on the CPU without an error. Exit status 1 and one line on standard error if so.
"""

import os
import sys

import numpy as np


def tensorflow_fault() -> str | None:
    """What keeps TensorFlow from the GPU, or None."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # warnings say which library is missing
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "TensorFlow sees no GPU: is the extra `gpu` installed, and does nvidia-smi see one?"
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        with tf.device("/GPU:0"):
            tf.nn.conv2d(tf.ones((1, 8, 8, 3)), tf.ones((3, 3, 3, 4)), 1, "SAME").numpy()
    except Exception as error:
        return f"TensorFlow cannot compute on the GPU: {_first_line(error)}"
    return None


def onnx_runtime_fault() -> str | None:
    """What keeps ONNX Runtime from the GPU, or None."""
    import onnxruntime

    cuda = "CUDAExecutionProvider"
    if cuda not in onnxruntime.get_available_providers():
        return (
            f"ONNX Runtime {onnxruntime.__version__} is the package for CPUs: onnxruntime-gpu has "
            "to be installed without onnxruntime (deploy/overrides-gpu.txt)"
        )
    try:
        # It finds the libraries that pip installs for TensorFlow only if it is told to look there.
        onnxruntime.preload_dlls()
        session = onnxruntime.InferenceSession(_convolution(), providers=[cuda])
        if session.get_providers()[0] != cuda:
            return (
                f"ONNX Runtime {onnxruntime.__version__} works on the CPU only; the lines above "
                "name the library or driver that it misses"
            )
        session.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})
    except Exception as error:
        return f"ONNX Runtime cannot compute on the GPU: {_first_line(error)}"
    return None


def _convolution() -> bytes:
    """An ONNX network of one convolution, which needs cuDNN."""
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 6, 6))],
        [weights],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def main() -> int:
    faults = [fault for fault in (tensorflow_fault(), onnx_runtime_fault()) if fault]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not faults:
        print("TensorFlow and ONNX Runtime compute on the GPU")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

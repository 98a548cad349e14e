"""Predictors: images in, logits out, by one of two engines."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from segray.errors import InputError
from segray.model.bundle import ONNX, WEIGHTS, Bundle

Engine = Literal["auto", "tensorflow", "onnx"]


class Predictor(Protocol):
    """A network that is ready to run; any number of threads may call it."""

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """images uint8 [B, S, S, 3] RGB -> logits float32 [B, S, S, C]."""
        ...


class OnnxPredictor:
    """ONNX Runtime on the CPU; TensorFlow is not imported.

    Args:
        bundle: with the file `ONNX`.
        threads: how many cores an image, or a part of a batch, is computed on; 0 for all of the
            machine's.
        parts: how many parts of a batch are computed side by side.
    """

    def __init__(self, bundle: Bundle, threads: int = 0, parts: int = 1) -> None:
        import onnxruntime

        self._parts = parts
        self._pool = ThreadPoolExecutor(parts)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait sleep: other work, such as decoding, wants the cores meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            bundle.files[ONNX], options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """images uint8 [B, S, S, 3] RGB -> logits float32 [B, S, S, C]."""
        parts = np.array_split(images, max(1, min(self._parts, len(images))))
        return np.concatenate(list(self._pool.map(self._predict_part, parts)))

    def _predict_part(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
        return logits


class TensorflowPredictor:
    """Keras on TensorFlow; with a GPU, compiled by XLA and in mixed precision.

    Args:
        bundle: with the file `WEIGHTS`.
        threads: how many cores one call uses; 0 for all of the machine's. TensorFlow takes it
            from the first predictor of a process, if nothing has run in it before.
    """

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        import keras
        import tensorflow as tf

        from segray.model.unet import build_unet, load_weights_content

        if threads:
            # Once TensorFlow has run, it keeps the threads that it has.
            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(threads)
        gpu = bool(tf.config.list_physical_devices("GPU"))
        before = keras.config.dtype_policy()
        # float16 and not bfloat16: for a forward pass its range is enough and its precision better.
        keras.config.set_dtype_policy("mixed_float16" if gpu else "float32")
        try:
            model = build_unet(
                len(bundle.labels),
                bundle.image_size,
                input_range=bundle.input_range,
                even_upsampling=bundle.even_upsampling,
            )
        finally:
            keras.config.set_dtype_policy(before)
        load_weights_content(model, bundle.files[WEIGHTS])
        shape = (None, bundle.image_size, bundle.image_size, 3)

        # XLA on a CPU was measured slower than TensorFlow's own kernels.
        @tf.function(jit_compile=gpu, input_signature=[tf.TensorSpec(shape, tf.uint8)])
        def forward(images: Any) -> Any:
            return model(images, training=False)

        self._forward, self._compiled = forward, gpu
        # Several batches at once would share the cores and multiply the memory.
        self._running = Lock()

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """images uint8 [B, S, S, 3] RGB -> logits float32 [B, S, S, C]."""
        count = len(images)
        if self._compiled:
            # XLA compiles for each size that it meets: powers of two are few.
            images = np.resize(images, (1 << (count - 1).bit_length(), *images.shape[1:]))
        with self._running:
            logits: npt.NDArray[np.float32] = self._forward(images).numpy()
        return logits[:count]


def choose_engine(engine: Engine, use_gpu: bool) -> Literal["tensorflow", "onnx"]:
    """What ``auto`` means: TensorFlow where there is a GPU to use, ONNX Runtime where not.

    Raises:
        InputError: there is no such engine.
    """
    if engine not in get_args(Engine):
        raise InputError(
            f"there is no engine {engine!r}: take one of {', '.join(get_args(Engine))}"
        )
    if engine == "auto":
        return "tensorflow" if use_gpu else "onnx"
    return engine


def engine_file(engine: Literal["tensorflow", "onnx"]) -> str:
    """The name of the bundle's file that an engine reads."""
    return WEIGHTS if engine == "tensorflow" else ONNX


def load_predictor(
    bundle: Bundle, engine: Literal["tensorflow", "onnx"], threads: int = 0
) -> Predictor:
    """Make a bundle ready to run; the bundle has the engine's file (`engine_file`).

    Args:
        bundle: the model.
        engine: what runs it.
        threads: how many cores a batch is computed on; 0 for all of the machine's, with which a
            single image is done soonest.
    """
    if engine == "tensorflow":
        return TensorflowPredictor(bundle, threads)
    # A core to each part of a batch: ONNX Runtime's own threads wait for each other after every
    # layer, and are a fifth slower.
    return OnnxPredictor(bundle, 1, threads) if threads else OnnxPredictor(bundle)

"""Predictors: images in, logits out, by one of two inference engines."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from segray.errors import InputError
from segray.model.bundle import ONNX, WEIGHTS, Bundle

Engine = Literal["auto", "tensorflow", "onnx"]


# The pixels of images that ONNX Runtime computes at once on a core. With more it is no faster, and
# takes a gigabyte for a batch of 32 images of 256x256.
_PIXELS_AT_ONCE = 1 << 17


class Predictor(Protocol):
    """A network that is ready to run. Thread-safe."""

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Predict: images uint8 [B, H, W, 3] RGB -> logits float32 [B, H, W, C]."""
        ...


class OnnxPredictor:
    """Predicts with ONNX Runtime; TensorFlow is not imported.

    Args:
        bundle: a bundle with the file `ONNX`.
        threads: the number of cores that compute an image, or a part of a batch; 0 for all cores.
        parts: the number of parts of a batch that are computed in parallel.
        gpu: True to run the network on the GPU.

    Raises:
        InputError: ONNX Runtime finds no GPU.
    """

    def __init__(self, bundle: Bundle, threads: int = 0, parts: int = 1, gpu: bool = False) -> None:
        import onnxruntime

        self._parts = parts
        self._pool = ThreadPoolExecutor(parts)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Waiting threads sleep, which leaves the cores to other work, such as decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if gpu:
            self._session = _open_cuda_session(bundle.files[ONNX], options)
        else:
            self._session = onnxruntime.InferenceSession(
                bundle.files[ONNX], options, providers=["CPUExecutionProvider"]
            )
        self._input = self._session.get_inputs()[0].name
        # Images that are computed at once; 0 for all of a part.
        self._step = 0 if gpu else max(1, _PIXELS_AT_ONCE // bundle.frame.pixels)

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Predict: images uint8 [B, H, W, 3] RGB -> logits float32 [B, H, W, C]."""
        parts = np.array_split(images, max(1, min(self._parts, len(images))))
        return np.concatenate(list(self._pool.map(self._predict_part, parts)))

    def _predict_part(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        step = self._step or len(images)
        logits = [
            self._session.run(None, {self._input: images[start : start + step]})[0]
            for start in range(0, len(images), step)
        ]
        return np.concatenate(logits) if len(logits) > 1 else logits[0]


def _open_cuda_session(content: bytes, options: Any) -> Any:
    """Open a network on this process's GPU, with nothing of it left to the CPU.

    Raises:
        InputError: ONNX Runtime sees no GPU here, or cannot run the network on it.
    """
    import onnxruntime

    from segray.model.cuda import fit_cuda

    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise _no_gpu("this ONNX Runtime is built for CPUs only")
    # CUDA's libraries are packages of their own, which the linker would not look into.
    onnxruntime.preload_dlls()
    # Without it, a provider that does not start or has no kernel for a layer leaves that to the
    # CPU, and only notes it in its log.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.log_severity_level = 3
    # TensorFloat-32 is no faster here, and moves one pixel in 5,000 to another class.
    settings = {"use_tf32": "0"}
    try:
        return onnxruntime.InferenceSession(
            fit_cuda(content), options, providers=[(provider, settings)]
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise _no_gpu(f"ONNX Runtime's CUDA provider does not run the model: {reason}") from error


class TensorflowPredictor:
    """Predicts with Keras on TensorFlow; on a GPU compiled by XLA and in mixed precision.

    Args:
        bundle: a bundle with the file `WEIGHTS`.
        threads: the number of cores of one call; 0 for all cores. TensorFlow takes it from the
            first predictor of a process, if nothing has run in it before.
        gpu: True to run the network on the GPU.

    Raises:
        InputError: TensorFlow finds no GPU.
    """

    def __init__(self, bundle: Bundle, threads: int = 0, gpu: bool = False) -> None:
        import keras
        import tensorflow as tf

        from segray.model.unet import build_unet, load_weights_content

        # TensorFlow does not change its threads or its memory allocation once it has run.
        if threads:
            with contextlib.suppress(RuntimeError):
                tf.config.threading.set_intra_op_parallelism_threads(threads)
        if gpu:
            cards = find_tensorflow_gpus()
            with contextlib.suppress(RuntimeError):
                for card in cards:
                    tf.config.experimental.set_memory_growth(card, True)
        before = keras.config.dtype_policy()
        # float16, not bfloat16: its range suffices for a forward pass, and its precision is better.
        keras.config.set_dtype_policy("mixed_float16" if gpu else "float32")
        try:
            model = build_unet(bundle.architecture)
        finally:
            keras.config.set_dtype_policy(before)
        load_weights_content(model, bundle.files[WEIGHTS])
        shape = (None, *bundle.frame.shape, 3)

        # On CPUs, XLA was measured to be slower than TensorFlow's own kernels.
        @tf.function(jit_compile=gpu, input_signature=[tf.TensorSpec(shape, tf.uint8)])
        def forward(images: Any) -> Any:
            return model(images, training=False)

        self._forward = forward
        # Concurrent batches would share the cores and multiply the memory.
        self._running = Lock()

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Predict: images uint8 [B, H, W, 3] RGB -> logits float32 [B, H, W, C]."""
        with self._running:
            logits: npt.NDArray[np.float32] = self._forward(images).numpy()
        return logits


class _FlippedPredictor:
    """Averages the logits of images with those of their mirror images (test-time augmentation)."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Predict: images uint8 [B, H, W, 3] RGB -> logits float32 [B, H, W, C]."""
        logits = self._predictor.predict(images)
        mirrored = self._predictor.predict(np.ascontiguousarray(images[:, :, ::-1]))
        mean: npt.NDArray[np.float32] = (logits + mirrored[:, :, ::-1]) / np.float32(2)
        return mean


class _PaddedPredictor:
    """Pads batches to one size, because a GPU compiles or tunes the network for each size."""

    def __init__(self, predictor: Predictor, batch_size: int) -> None:
        self._predictor, self._batch_size = predictor, batch_size

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Predict at most a batch: images uint8 [B, H, W, 3] RGB -> logits float32 [B, H, W, C]."""
        count = len(images)
        if count < self._batch_size:
            images = np.resize(images, (self._batch_size, *images.shape[1:]))
        return self._predictor.predict(images)[:count]


def choose_engine(engine: Engine) -> Literal["tensorflow", "onnx"]:
    """Resolve ``auto``, which means ONNX Runtime.

    Raises:
        InputError: there is no such engine.
    """
    if engine not in get_args(Engine):
        raise InputError(
            f"there is no engine {engine!r}: take one of {', '.join(get_args(Engine))}"
        )
    return "onnx" if engine == "auto" else engine


def engine_file(engine: Literal["tensorflow", "onnx"]) -> str:
    """Return the name of the bundle's file that an engine reads."""
    return WEIGHTS if engine == "tensorflow" else ONNX


def load_predictor(
    bundle: Bundle,
    engine: Literal["tensorflow", "onnx"],
    threads: int = 0,
    test_time_flip: bool = False,
) -> Predictor:
    """Load a bundle, which must have the engine's file (`engine_file`), for prediction on CPUs.

    Args:
        bundle: the model.
        engine: the inference engine.
        threads: the number of cores that compute a batch; 0 for all cores, which is fastest for a
            single image.
        test_time_flip: True to average with the prediction for the mirror image.
    """
    network: Predictor
    if engine == "tensorflow":
        network = TensorflowPredictor(bundle, threads)
    else:
        # One core per part of a batch: ONNX Runtime's own threads wait for each other after every
        # layer, and are a fifth slower.
        network = OnnxPredictor(bundle, 1, threads) if threads else OnnxPredictor(bundle)
    return _FlippedPredictor(network) if test_time_flip else network


def load_gpu_predictor(
    bundle: Bundle,
    engine: Literal["tensorflow", "onnx"],
    batch_size: int,
    test_time_flip: bool = False,
) -> Predictor:
    """Load a bundle, which must have the engine's file (`engine_file`), for prediction on the GPU.

    Args:
        bundle: the model.
        engine: the inference engine.
        batch_size: the maximum batch size; smaller batches are padded to it.
        test_time_flip: True to average with the prediction for the mirror image.

    Raises:
        InputError: the engine finds no GPU.
    """
    network: Predictor
    if engine == "tensorflow":
        network = TensorflowPredictor(bundle, gpu=True)
    else:
        network = OnnxPredictor(bundle, gpu=True)
    network = _PaddedPredictor(network, batch_size)
    return _FlippedPredictor(network) if test_time_flip else network


def find_tensorflow_gpus() -> list[Any]:
    """List the GPUs that TensorFlow finds in this process, at least one.

    Raises:
        InputError: it finds none.
    """
    import tensorflow as tf

    gpus: list[Any] = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise _no_gpu("TensorFlow sees none")
    return gpus


def _no_gpu(reason: str) -> InputError:
    """Make the error of a process that cannot use its GPU."""
    return InputError(
        f"--use-gpu: no GPU can be used on the node {socket.gethostname()}: {reason}: install "
        "the extra '.[gpu]' there, as docs/cluster.md says, or leave out --use-gpu"
    )

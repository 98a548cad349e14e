import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pytest
from onnx import load_from_string

from segray.errors import InputError
from segray.model.bundle import ONNX, WEIGHTS, Bundle, open_bundle
from segray.model.cuda import fit_cuda
from segray.model.predictor import (
    Engine,
    Predictor,
    _PaddedPredictor,
    choose_engine,
    load_gpu_predictor,
    load_predictor,
)
from tests.support import IMAGE_SIZE, draw_batch, draw_picture

if TYPE_CHECKING:
    import keras


@pytest.fixture(scope="module")
def bundle(bundle_uri: str) -> Bundle:
    return open_bundle(bundle_uri, [WEIGHTS, ONNX])


@pytest.fixture(scope="module")
def onnx(bundle: Bundle) -> Predictor:
    return load_predictor(bundle, "onnx")


@pytest.fixture(scope="module")
def tensorflow(bundle: Bundle) -> Predictor:
    return load_predictor(bundle, "tensorflow")


def test_engines_agree(onnx: Predictor, tensorflow: Predictor) -> None:
    images = draw_batch(16)

    first, second = onnx.predict(images), tensorflow.predict(images)

    assert first.shape == second.shape == (16, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert first.dtype == second.dtype == np.float32
    assert len(np.unique(first.argmax(-1))) == 3, "a network that sees no difference proves nothing"
    assert np.abs(first - second).max() < 1e-4 * np.ptp(first)
    assert (first.argmax(-1) != second.argmax(-1)).mean() < 1e-4


def test_the_mean_with_the_mirror_image_is_mirrored_with_it(
    bundle: Bundle, onnx: Predictor
) -> None:
    images = draw_batch(3)
    mirror_images = images[:, :, ::-1].copy()
    flipping = load_predictor(bundle, "onnx", test_time_flip=True)

    logits = flipping.predict(images)

    one, other = onnx.predict(images), onnx.predict(mirror_images)[:, :, ::-1]
    np.testing.assert_allclose(logits, (one + other) / 2, atol=1e-5)
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(flipping.predict(mirror_images)[:, :, ::-1], logits, atol=1e-5)


def test_engines_compute_what_the_network_does(onnx: Predictor, network: "keras.Model") -> None:
    images = draw_batch(2)

    expected = network(images, training=False).numpy()

    np.testing.assert_allclose(onnx.predict(images), expected, atol=1e-4 * np.ptp(expected))


def test_onnx_gives_an_image_the_same_logits_in_any_batch(onnx: Predictor) -> None:
    images = draw_batch(5)

    one_by_one = np.concatenate([onnx.predict(image[None]) for image in images])

    np.testing.assert_array_equal(onnx.predict(images), one_by_one)


def test_tensorflow_gives_an_image_the_same_logits_in_any_batch(tensorflow: Predictor) -> None:
    images = draw_batch(5)

    one_by_one = np.concatenate([tensorflow.predict(image[None]) for image in images])

    together = tensorflow.predict(images)
    np.testing.assert_allclose(together, one_by_one, atol=1e-5 * np.ptp(together))


def test_onnx_gives_the_same_logits_on_any_number_of_threads(bundle: Bundle) -> None:
    images = draw_batch(3)

    one, two = (load_predictor(bundle, "onnx", threads).predict(images) for threads in (1, 2))

    np.testing.assert_array_equal(one, two)


def test_tensorflow_takes_threads_when_it_has_already_run(
    bundle: Bundle, tensorflow: Predictor
) -> None:
    images = draw_batch(1)
    expected = tensorflow.predict(images)

    logits = load_predictor(bundle, "tensorflow", threads=2).predict(images)

    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize(
    ("engine", "chosen"), [("auto", "onnx"), ("onnx", "onnx"), ("tensorflow", "tensorflow")]
)
def test_auto_means_onnx(engine: Engine, chosen: str) -> None:
    assert choose_engine(engine) == chosen


def test_onnx_imports_neither_tensorflow_nor_keras(bundle_uri: str, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", draw_picture(40, 30))
    program = f"""
import sys
import numpy
import segray
mask = segray.load({bundle_uri!r}).segment(numpy.load("image.npy"))
assert mask.shape == (40, 30)
print(*{{name.partition(".")[0] for name in sys.modules}})
"""

    process = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )

    assert process.returncode == 0, process.stderr
    modules = set(process.stdout.split())
    assert "onnxruntime" in modules
    assert not modules & {"tensorflow", "keras", "ray", "tf2onnx", "h5py"}


def test_a_padded_batch_has_the_same_logits(onnx: Predictor) -> None:
    images = draw_batch(5)

    np.testing.assert_array_equal(_PaddedPredictor(onnx, 8).predict(images), onnx.predict(images))


def test_a_gpu_sees_batches_of_one_size_only(onnx: Predictor) -> None:
    sizes = set()

    class Watched:
        def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            sizes.add(len(images))
            return onnx.predict(images)

    padded = _PaddedPredictor(Watched(), 4)
    for count in (4, 3, 1):
        assert padded.predict(draw_batch(count)).shape[0] == count
    assert sizes == {4}


def test_the_graph_for_cuda_computes_the_same(bundle: Bundle, onnx: Predictor) -> None:
    """ONNX Runtime's CUDA provider has no transposed convolution of asymmetric padding."""
    content = fit_cuda(bundle.files[ONNX])

    nodes = load_from_string(content).graph.node
    upsampling = [node for node in nodes if node.op_type == "ConvTranspose"]
    assert len(upsampling) == 5
    for node in upsampling:
        [pads] = [item.ints for item in node.attribute if item.name == "pads"]
        assert not any(pads)
    fitted = load_predictor(replace(bundle, files={ONNX: content}), "onnx")
    images = draw_batch(3)
    np.testing.assert_array_equal(fitted.predict(images), onnx.predict(images))


@pytest.mark.parametrize("engine", ["onnx", "tensorflow"])
def test_without_a_gpu_none_is_pretended(
    bundle: Bundle, engine: Literal["onnx", "tensorflow"]
) -> None:
    with pytest.raises(InputError, match="--use-gpu: no GPU can be used on the node"):
        load_gpu_predictor(bundle, engine, 8)

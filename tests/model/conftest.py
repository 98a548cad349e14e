"""What the tests of the model share: one small network, written once as a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.pixels.labels import Labels

if TYPE_CHECKING:
    import keras

IMAGE_SIZE = 64
RECORD = {"configuration": {"epochs": 3}, "metrics": {"mean_iou": 0.5, "iou_border": None}}


def draw_picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Blobs of random colours, uint8 [H, W, 3]."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def draw_batch(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Images as the network takes them, uint8 [B, S, S, 3]."""
    return np.stack([draw_picture(IMAGE_SIZE, IMAGE_SIZE, seed + i) for i in range(count)])


@pytest.fixture(scope="session")
def labels() -> Labels:
    """Three classes and a value to ignore."""
    return Labels(("pet", "background", "border"), (1, 2, 3), (255,))


@pytest.fixture(scope="session")
def network() -> "keras.Model":
    """A network with random weights whose running statistics are those of some images.

    Without them its logits are all but equal, and a mask would say nothing.
    """
    import keras

    from segray.model.unet import build_unet

    keras.utils.set_random_seed(0)
    network = build_unet(3, IMAGE_SIZE)
    for step in range(15):
        network(draw_batch(4, seed=4 * step), training=True)
    return network


@pytest.fixture(scope="session")
def bundle_uri(
    network: "keras.Model", labels: Labels, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The folder of a bundle of `network`. Exporting is slow, so do not change it: copy it."""
    from segray.model.bundle import write_bundle

    folder = tmp_path_factory.mktemp("bundle") / "model"
    write_bundle(str(folder), network, labels, RECORD)
    return str(folder)


@pytest.fixture(scope="session")
def mobilenet() -> "keras.Model":
    """MobileNetV2 as keras.applications makes it, with random weights."""
    import keras

    return keras.applications.MobileNetV2((96, 96, 3), weights=None, include_top=False)


@pytest.fixture(scope="session")
def encoder_weights(
    mobilenet: "keras.Model", tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The weights of `mobilenet` in both formats that Keras has had."""
    import h5py

    # The published ImageNet weights are in this format; Keras 3 writes it here only.
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    folder = Path(tmp_path_factory.mktemp("encoder"))
    mobilenet.save_weights(folder / "new.weights.h5")
    with h5py.File(folder / "legacy.h5", "w") as file:
        save_weights_to_hdf5_group(file, mobilenet)
    return {
        "new": (folder / "new.weights.h5").read_bytes(),
        "legacy": (folder / "legacy.h5").read_bytes(),
    }

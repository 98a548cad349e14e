"""What the tests of the model share: one small network, written once as a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import keras


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

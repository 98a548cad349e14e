"""The defaults of flags: those of a model that training goes on from."""

import json
import shutil
from pathlib import Path

import pytest

from segray.errors import InputError
from segray.flags import read_flags
from segray.pixels.labels import Labels
from segray.training.config import TrainConfig
from segray.training.recipes import RECIPES, start_from


def read(model: Path, *words: str, recipe: str = "segray") -> TrainConfig:
    """The configuration of a command line that goes on from a model."""
    flags = ["--from-model", str(model), *words]
    default = start_from(str(model), RECIPES[recipe](), "--classes" not in words)
    return read_flags(TrainConfig, default, arguments=flags)


@pytest.fixture
def model(bundle_uri: str, tmp_path: Path) -> Path:
    """A model whose settings are no defaults."""
    folder = Path(shutil.copytree(bundle_uri, tmp_path / "model"))
    document = json.loads((folder / "model.json").read_text())
    labels = Labels.parse(["road=#804080", "sky=#0000ff"], ["#000000"], others_ignored=True)
    document["labels"] = labels.to_json()
    document["architecture"] |= {
        "image_size": [64, 96],
        "classes": 2,
        "encoder": "MobileNetV2-0.5",
        "decoder": "tutorial",
        "input_range": [0.0, 1.0],
        "even_upsampling": False,
        "fit": "tile",
        "scale": 0.5,
    }
    (folder / "model.json").write_text(json.dumps(document))
    return folder


def test_a_model_gives_its_classes_and_its_network(model: Path) -> None:
    config = read(model)
    expected = Labels.parse(["road=#804080", "sky=#0000ff"], ["#000000"], others_ignored=True)
    assert config.labels == expected
    assert (config.image_size, config.fit, config.scale) == ((64, 96), "tile", 0.5)
    assert (config.encoder, config.decoder) == ("MobileNetV2-0.5", "tutorial")
    assert (config.input_range, config.even_upsampling) == ((0.0, 1.0), False)
    assert config.learning_rate == TrainConfig().learning_rate


def test_flags_take_precedence_over_the_model(model: Path) -> None:
    config = read(model, "--classes", "sky=3", "road=4", "--image-size", "128")
    assert config.labels == Labels.parse(["sky=3", "road=4"])
    assert (config.image_size, config.fit) == (128, "tile")


def test_a_recipe_keeps_its_other_settings(model: Path) -> None:
    assert read(model, "--encoder", "MobileNetV2", recipe="tutorial").batch_size == 64


def test_without_the_model_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        start_from(str(tmp_path / "none"), TrainConfig(), True)
    assert "\n" not in str(caught.value)

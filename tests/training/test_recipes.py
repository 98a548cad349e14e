"""The defaults of flags: those of a model that training goes on from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from segray.data.labelled import Reading
from segray.errors import InputError
from segray.flags import given_flags, read_flags, read_values
from segray.model.start import StartingModel
from segray.pixels.labels import Labels
from segray.training.config import TrainConfig
from segray.training.marker import write_marker
from segray.training.recipes import choose_recipe


def read(*words: str) -> TrainConfig:
    """The configuration of a command line."""
    flags = ["--pairs", "pairs.csv", *words]
    recipe = choose_recipe(read_values(TrainConfig, arguments=flags), given_flags(flags))
    return read_flags(TrainConfig, recipe, arguments=flags)


@pytest.fixture
def model(bundle_uri: str, tmp_path: Path) -> str:
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
    return str(folder)


def test_a_model_gives_its_classes_and_its_network(model: str) -> None:
    config = read("--from-model", model)
    expected = Labels.parse(["road=#804080", "sky=#0000ff"], ["#000000"], others_ignored=True)
    assert config.labels == expected
    assert (config.image_size, config.fit, config.scale) == ((64, 96), "tile", 0.5)
    assert (config.encoder, config.decoder) == ("MobileNetV2-0.5", "tutorial")
    assert (config.input_range, config.even_upsampling) == ((0.0, 1.0), False)
    assert config.learning_rate == pytest.approx(0.3 * TrainConfig().learning_rate)
    assert config.batch_size == TrainConfig().batch_size


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--image-size=128"], {"image_size": 128, "fit": "tile", "scale": 0.5}),
        (["--fit", "letterbox"], {"fit": "letterbox", "scale": 1.0, "image_size": (64, 96)}),
        (["--fit", "tile"], {"fit": "tile", "scale": 0.5}),
        (["--learning-rate", "0.01"], {"learning_rate": 0.01}),
        (["--scale", "0.25"], {"fit": "tile", "scale": 0.25}),
        (["--foreground-share", "0.1"], {"foreground_share": 0.1}),
        (["--class-weights", "road=5"], {"class_weights": ("road=5",)}),
        (["--ignore-values", "#ffffff"], {"ignore_values": ("#ffffff",)}),
        (["--no-ignore-others"], {"ignore_others": False}),
        # Ignore values belong to the classes: with other ones, those of the model are no default.
        (
            ["--classes", "pet=1", "background=2", "border=3"],
            {"ignore_values": (), "ignore_others": False, "learning_rate": 0.001},
        ),
    ],
)
def test_flags_take_precedence_over_the_model(
    model: str, words: list[str], settings: dict[str, Any]
) -> None:
    config = read("--from-model", model, *words)
    assert {name: getattr(config, name) for name in settings} == settings


def test_a_recipe_that_does_not_go_with_the_model_is_refused(model: str) -> None:
    with pytest.raises(InputError, match="--recipe tutorial"):
        read("--from-model", model, "--recipe", "tutorial")


def test_without_the_model_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read("--from-model", str(tmp_path / "none"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flag", ["--pairs", "--from-model", "--output"])
def test_an_empty_flag_is_refused_by_its_name(flag: str, model: str) -> None:
    value = [] if flag == "--pairs" else [""]
    with pytest.raises(InputError, match=f"^{flag} is empty"):
        read("--from-model", model, flag, *value)


def test_a_run_that_was_started_does_not_need_the_model_any_more(
    model: str, tmp_path: Path
) -> None:
    words = ["--from-model", model, "--output", str(tmp_path / "run"), "--epochs", "3"]
    config = read(*words)
    reading = Reading("stored", None)
    start = StartingModel(model, "digest", config.architecture, config.labels.names, b"")
    write_marker(str(tmp_path / "run"), config, "fingerprint", reading, start)
    shutil.rmtree(model)

    assert read(*words) == config

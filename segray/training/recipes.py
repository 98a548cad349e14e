"""Recipes: complete sets of defaults for a training run."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from segray.model.bundle import open_bundle
from segray.storage.uri import absolute_uri
from segray.training.config import Recipe, TrainConfig
from segray.training.marker import read_marker

# By the learning rates of a new network, one that has learned the same classes forgets some of what
# it knows (docs/log.md).
_CONTINUED = 0.3
# The settings of a model that training continues from: of its classes, and of its network.
_LABELS = ("classes", "ignore_values", "ignore_others")
_NETWORK = (
    "image_size",
    "fit",
    "scale",
    "encoder",
    "decoder",
    "input_range",
    "even_upsampling",
)


def segray_recipe() -> TrainConfig:
    """Return segray's own settings, the defaults of all flags.

    docs/results.md says what they reach on pets and street scenes, and how long they take.
    """
    return TrainConfig()


def tutorial_recipe() -> TrainConfig:
    """Return the settings of TensorFlow's "Image segmentation" tutorial, for comparison.

    Pixels are scaled to [0, 1], the encoder stays frozen, Adam has a constant rate, images are
    flipped and not changed otherwise, and the rest are Keras' defaults:
    https://www.tensorflow.org/tutorials/images/segmentation.
    """
    return TrainConfig(
        recipe="tutorial",
        batch_size=64,
        input_range=(0.0, 1.0),
        even_upsampling=False,
        decoder="tutorial",
        optimizer="adamw",
        encoder_learning_rate=0.0,
        schedule="constant",
        warmup=0.0,
        weight_decay=0.0,
        batch_norm_momentum=0.99,
        loss="ce",
        zoom=(1.0, 1.0),
        detail=1.0,
        stretch=0.0,
        rotation=0.0,
        colour=0.0,
        blur=0.0,
        noise=0.0,
        calibrate=False,
    )


#: The recipes by the values of --recipe.
RECIPES: dict[Recipe, Callable[[], TrainConfig]] = {
    "segray": segray_recipe,
    "tutorial": tutorial_recipe,
}


def shorten_for_sample(recipe: TrainConfig) -> TrainConfig:
    """Change a recipe so that it trains on the sample in about a minute on two cores.

    The resolution is lower, the epochs are fewer, and the encoder's weights are random.
    """
    return replace(recipe, image_size=96, epochs=7, learning_rate=2e-3, encoder_weights="none")


def choose_recipe(values: Mapping[str, Any], given: Collection[str]) -> TrainConfig:
    """Return the defaults of the flags of a command line, which take precedence over them.

    With --from-model, the classes and the network are those of the model; of a run that has been
    started, those that it was started with, because the model may be gone. For the same
    classes, the learning rates are lower.

    Args:
        values: the values of all flags, by name; of those that were not given, any.
        given: the names of the flags that were given.

    Raises:
        InputError: the model cannot be read.
    """
    recipe = RECIPES[values["recipe"]]()
    if values["images"] is None and values["pairs"] is None:
        recipe = shorten_for_sample(recipe)
    if not values["from_model"] or not values["output"]:  # none, or one that is refused
        return recipe
    marker = read_marker(absolute_uri(values["output"]))
    if marker and marker["configuration"].get("from_model") is not None:
        before = marker["configuration"]
    else:
        before = _read_settings(values["from_model"])
    names = set(_NETWORK)
    if "classes" not in given:
        names |= set(_LABELS)
        recipe = replace(
            recipe,
            learning_rate=_CONTINUED * recipe.learning_rate,
            encoder_learning_rate=_CONTINUED * recipe.encoder_learning_rate,
        )
    if "fit" in given and values["fit"] != before["fit"]:
        names.remove("scale")  # which only one of the two has
    taken: dict[str, Any] = {
        name: tuple(value) if isinstance(value := before[name], list) else value for name in names
    }
    return replace(recipe, **taken)


def _read_settings(uri: str) -> dict[str, Any]:
    """Return the settings of a model that training may continue from."""
    bundle = open_bundle(uri, [])
    classes, ignored = bundle.labels.words
    return {
        "classes": classes,
        "ignore_values": ignored,
        "ignore_others": bundle.labels.others_ignored,
        "fit": bundle.fit,
        "scale": bundle.scale,
        **{n: v for n, v in bundle.architecture.to_json().items() if n != "classes"},
    }

"""Recipes: complete sets of defaults for a training run."""

from collections.abc import Callable
from dataclasses import replace

from segray.model.architecture import join_size
from segray.model.bundle import open_bundle
from segray.training.config import Recipe, TrainConfig


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


def start_from(uri: str, recipe: TrainConfig, with_classes: bool) -> TrainConfig:
    """Change a recipe's network, and perhaps its classes, to those of a model to continue from.

    Args:
        uri: the folder of the model's bundle.
        recipe: the recipe.
        with_classes: True to take the model's classes and ignore values, too.

    Raises:
        InputError: there is no such model.
    """
    bundle = open_bundle(uri, [])
    architecture = bundle.architecture
    if with_classes:
        classes, ignored = bundle.labels.words
        others = bundle.labels.others_ignored
        recipe = replace(recipe, classes=classes, ignore_values=ignored, ignore_others=others)
    return replace(
        recipe,
        image_size=join_size(architecture.height, architecture.width),
        fit=bundle.fit,
        scale=bundle.scale,
        encoder=architecture.encoder,
        decoder=architecture.decoder,
        input_range=architecture.input_range,
        even_upsampling=architecture.even_upsampling,
    )


def shorten_for_sample(recipe: TrainConfig) -> TrainConfig:
    """Change a recipe so that it trains on the sample in about a minute on two cores.

    The resolution is lower, the epochs are fewer, and the encoder's weights are random.
    """
    return replace(recipe, image_size=96, epochs=7, learning_rate=2e-3, encoder_weights="none")

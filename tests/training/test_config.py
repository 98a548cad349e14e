import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from segray.errors import InputError
from segray.flags import read_flags
from segray.training.config import TrainConfig
from segray.training.control.workers import Workers
from segray.training.recipes import RECIPES, shorten_for_sample

PIXELS = np.array([600, 300, 100])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": "i"}, "--images and --masks go together"),
        ({"masks": "m"}, "--images and --masks go together"),
        (
            {"pairs": ("p",), "images": "i", "masks": "m"},
            "--pairs .* leave out --images and --masks",
        ),
        ({"validation_images": "i"}, "--validation-images and --validation-masks go together"),
        ({"validation_images": "i", "validation_masks": "m"}, "needs --images"),
        ({"pairs": ("p",), "validation_images": "i", "validation_masks": "m"}, "needs --images"),
        ({"images": "", "masks": ""}, "--images is empty"),
        ({"pairs": ("",)}, "--pairs is empty"),
        ({"pairs": ()}, "--pairs is empty"),
        ({"output": ""}, "--output is empty"),
        ({"classes": ("pet=1",)}, "at least two"),
        ({"classes": ("pet=1", "road=#804080")}, "mix the number 1 and the colour #804080"),
        ({"max_error_rate": 1.1}, "--max-error-rate must be in 0 to 1"),
        ({"max_error_rate": float("nan")}, "--max-error-rate must be in 0 to 1"),
        ({"validation_fraction": 0.0}, "--validation-fraction must be above 0 and below 1"),
        ({"validation_fraction": 1.0}, "--validation-fraction must be above 0 and below 1"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"workers": -1}, "--workers must not be below 0"),
        ({"frozen_epochs": -1}, "--frozen-epochs must not be below 0"),
        ({"patience": -1}, "--patience must not be below 0"),
        ({"max_restarts": -1}, "--max-restarts must not be below 0"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
        ({"learning_rate": 0.0}, "--learning-rate must be a number above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be a number above 0"),
        ({"learning_rate": float("inf")}, "--learning-rate must be a number above 0"),
        ({"encoder_learning_rate": -1e-3}, "--encoder-learning-rate must be a number, 0 or above"),
        ({"weight_decay": float("inf")}, "--weight-decay must be a number, 0 or above"),
        ({"overlap_weight": -0.5}, "--overlap-weight must be a number, 0 or above"),
        ({"warmup": 1.0}, "--warmup must be in 0 to 1, 1 excluded"),
        ({"label_smoothing": -0.1}, "--label-smoothing must be in 0 to 1"),
        ({"batch_norm_momentum": 1.0}, "--batch-norm-momentum must be in 0 to 1"),
        ({"stretch": -0.1}, "--stretch must be in 0 to 1"),
        ({"colour": 1.5}, "--colour must be in 0 to 1"),
        ({"blur": 9.0}, "--blur must be in 0 to 8"),
        ({"blur": float("nan")}, "--blur must be in 0 to 8"),
        ({"noise": -1.0}, "--noise must be in 0 to 256"),
        ({"rotation": float("nan")}, "--rotation must be a number, 0 or above"),
        ({"zoom": (1.1, 0.7)}, "--zoom takes two shares, as in 0.7 1.1"),
        ({"zoom": (0.0, 1.0)}, "--zoom takes two shares"),
        ({"zoom": (0.5, 40.0)}, "--zoom takes two shares"),
        ({"input_range": (1.0, -1.0)}, "--input-range takes two numbers, as in -1 1"),
        ({"input_range": (0.0, 0.0)}, "--input-range takes two numbers"),
        ({"recipe": "tutorial", "encoder": "ResNet50V2"}, "and not a ResNet50V2"),
        ({"stall_timeout": 0.0}, "--stall-timeout must be a number above 0"),
        ({"scale": 0.0, "fit": "tile"}, "--scale must be above 0"),
        ({"scale": 17.0, "fit": "tile"}, "--scale must be above 0"),
        ({"scale": 0.5}, "--scale is of images that windows are cut from"),
        ({"foreground_share": 0.5}, "--foreground-share is of crops"),
        ({"foreground_share": 1.5, "fit": "tile"}, "--foreground-share must be in 0 to 1"),
        ({"detail": 3.0, "fit": "tile"}, "--detail is of images that are scaled"),
        ({"from_model": "m", "encoder_weights": "file"}, "leave out --encoder-weights"),
        ({"from_model": ""}, "--from-model is empty"),
        ({"class_weights": ("pets=2",)}, "'pets=2' is no NAME=WEIGHT of .* pet background border"),
        ({"class_weights": ("pet=much",)}, "'pet=much' is no NAME=WEIGHT"),
        ({"class_weights": ("pet",)}, "'pet' is no NAME=WEIGHT"),
        ({"class_weights": ("balanced", "pet=2")}, "not none or balanced alone"),
        ({"class_weights": ("pet=1", "border=3", "pet=2")}, "--class-weights names pet twice: "),
        ({"class_weights": ("pet=-1",)}, "'pet=-1' must be in 0 to 3e38"),
        ({"class_weights": ("pet=1e39",)}, "'pet=1e39' must be in 0 to 3e38"),
        ({"class_weights": ("pet=nan",)}, "'pet=nan'"),
        ({"class_weights": ("pet=inf",)}, "'pet=inf'"),
        ({"class_weights": ("pet=0", "background=0", "border=0")}, "one must be above 0"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 0},
        {"workers": 0, "batch_size": 7},
        {"workers": 4, "batch_size": 4},
        {"pairs": ("pairs.csv", "more.csv")},
        {"images": "i", "masks": "m", "validation_images": "i", "validation_masks": "m"},
        {"zoom": (1.0, 1.0), "stretch": 0.0, "rotation": 0.0, "colour": 0.0, "flip": False},
        {"encoder_learning_rate": 0.0, "weight_decay": 0.0, "overlap_weight": 0.0, "warmup": 0.0},
        {"patience": 3, "frozen_epochs": 0, "max_restarts": 0, "max_error_rate": 0.0},
        {"fit": "tile", "scale": 0.5, "foreground_share": 0.0, "image_size": (64, 96)},
        {"from_model": "m"},
        {"class_weights": ("border=0",)},
        {"classes": ("road=#804080", "sky=#4682b4"), "class_weights": ("sky=2",)},
    ],
)
def test_settings_that_can_be_used(settings: dict[str, Any]) -> None:
    config = TrainConfig(**settings)
    for name, value in settings.items():
        assert getattr(config, name) == value


def test_defaults_and_sample_settings_are_valid() -> None:
    assert TrainConfig().labels.names == ("pet", "background", "border")
    assert shorten_for_sample(TrainConfig()).encoder_weights == "none"


def test_the_tutorials_recipe_is_the_tutorials() -> None:
    """A frozen encoder, a constant rate, cross-entropy; flips, and no other augmentation."""
    config = RECIPES["tutorial"]()
    assert config.batch_size == 64
    assert config.input_range == (0.0, 1.0)
    assert not config.even_upsampling
    assert config.encoder_learning_rate == config.weight_decay == config.warmup == 0
    assert (config.schedule, config.loss) == ("constant", "ce")
    assert (config.class_weights, config.label_smoothing) == (("none",), 0)
    warps = config.augmentation.draw_warps(np.random.default_rng(0), 100, (128, 128), (128, 128))
    assert {tuple(abs(warp[[0, 1, 3, 4]])) for warp in warps} == {(1, 0, 0, 1)}
    assert set(warps[:, 0]) == {-1, 1}
    colours = config.augmentation.draw_colours(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(colours, [np.eye(3, 4)] * 3)
    assert not config.augmentation.draw_degradations(np.random.default_rng(0), 100).any()


def test_the_default_recipe_changes_nothing() -> None:
    assert RECIPES["segray"]() == TrainConfig()


def test_flags_of_augmentation_say_how_far_examples_are_changed() -> None:
    moves = {"flip": False, "zoom": (0.5, 2.0), "stretch": 0.3, "rotation": 45.0}
    config = TrainConfig(**moves, colour=0.4, blur=3.0, noise=20.0)
    augmentation = config.augmentation
    assert not augmentation.flip
    assert augmentation.zoom == (0.5, 2.0)
    assert (augmentation.stretch, augmentation.rotation, augmentation.colour) == (0.3, 45.0, 0.4)
    assert (augmentation.blur, augmentation.noise) == (3.0, 20.0)


def weights(*words: str) -> list[float]:
    return TrainConfig(class_weights=words).weigh_classes(PIXELS).tolist()


def test_classes_weigh_the_same_by_default() -> None:
    assert TrainConfig().weigh_classes(PIXELS).tolist() == weights("none") == [1, 1, 1]


def test_named_classes_get_their_weights_and_the_others_one() -> None:
    assert weights("border=2.5") == [1, 1, 2.5]
    assert weights("border=2", "pet=0") == [0, 1, 2]


def test_balanced_classes_count_the_same_in_all() -> None:
    """Rare ones weigh more, and the mean over all pixels is 1."""
    balanced = TrainConfig(class_weights=("balanced",)).weigh_classes(PIXELS)
    assert balanced.dtype == np.float32
    np.testing.assert_allclose(balanced * PIXELS, PIXELS.sum() / 3, rtol=1e-6)


def test_a_class_without_pixels_does_not_unbalance_the_others() -> None:
    balanced = TrainConfig(class_weights=("balanced",)).weigh_classes(np.array([600, 0, 200]))
    assert np.isfinite(balanced).all()
    np.testing.assert_allclose(balanced[[0, 2]] * [600, 200], 400, rtol=1e-6)


def test_a_configuration_survives_its_record() -> None:
    """What the bundle keeps is JSON, and has every setting."""
    config = TrainConfig(classes=("road=#804080", "sky=#4682b4"), seed=5, workers=0)
    document = json.loads(json.dumps(config.to_json()))
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    # How S3 is asked is the environment's affair, not the model's.
    assert document.keys() == fields - {"labels", "s3"}
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
    assert TrainConfig(**settings) == config


@pytest.mark.parametrize(("batch_size", "workers"), [(2, 3), (8, (1, 9))])
def test_a_batch_without_an_image_for_each_worker_is_refused(
    batch_size: int, workers: Workers
) -> None:
    config = TrainConfig(batch_size=batch_size, workers=workers)
    most = config.most_workers
    with pytest.raises(InputError, match=f"give at least --batch-size {most}"):
        config.check_shares()
    TrainConfig(batch_size=most, workers=workers).check_shares()


@pytest.mark.parametrize(
    ("flag", "least", "most"), [("1", 1, 1), ("0", 0, 0), ("1..4", 1, 4), ("2..3", 2, 3)]
)
def test_workers_are_a_number_or_a_range(flag: str, least: int, most: int) -> None:
    config = read_flags(TrainConfig, arguments=["--workers", flag])
    assert (config.least_workers, config.most_workers) == (least, most)


@pytest.mark.parametrize("flag", ["4..1", "0..2", "1..", "..", "two", "1.5"])
def test_other_workers_are_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((InputError, SystemExit)) as caught:
        read_flags(TrainConfig, arguments=["--workers", flag])
    told = str(caught.value) + "".join(capsys.readouterr())
    assert "--workers" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("batch_size", "workers", "cores", "parts"),
    [(8, 1, 2, 2), (8, 1, 1, 1), (8, 2, 2, 1), (6, 1, 4, 1), (64, 1, 4, 4), (256, 2, 32, 8)],
)
def test_a_worker_takes_its_share_of_a_batch_in_parts(
    batch_size: int, workers: int, cores: int, parts: int
) -> None:
    """One for each of its cores, but of four images at least, and of parts no more than eight."""
    assert TrainConfig(batch_size=batch_size).count_parts(cores, workers) == parts


def test_without_cores_of_its_own_a_worker_takes_its_share_whole() -> None:
    """As on a GPU, and in the process of a notebook."""
    assert TrainConfig(batch_size=64).count_parts(0, 1) == 1

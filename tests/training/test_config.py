from typing import Any

import pytest

from segray.errors import InputError
from segray.training.config import SAMPLE_SETTINGS, TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": "i"}, "--images and --masks go together"),
        ({"validation_images": "i"}, "--validation-images and --validation-masks go together"),
        ({"validation_images": "i", "validation_masks": "m"}, "needs --images"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"validation_fraction": 1.0}, "--validation-fraction"),
        ({"batch_size": 16, "workers": 3}, "cannot be shared equally .* such as 15"),
        ({"classes": ("pet=1",)}, "at least two"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
        ({"learning_rate": float("inf")}, "--learning-rate"),
        ({"images": "", "masks": ""}, "--images is empty"),
        ({"output": ""}, "--output is empty"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**settings)


def test_defaults_and_sample_settings_are_valid() -> None:
    assert TrainConfig().labels.names == ("pet", "background", "border")
    assert TrainConfig(**SAMPLE_SETTINGS).encoder_weights == "none"

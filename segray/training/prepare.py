"""The preparation of a training run: what can be checked and fetched before Ray is started."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from segray.errors import InputError
from segray.model.encoder import check_image_size, read_encoder_weights
from segray.storage.pairs import Pair, find_pairs, split_pairs
from segray.storage.sample import SAMPLE_FOLDER, write_sample
from segray.storage.uri import absolute_uri, child_names, exists, join_uri, read_bytes
from segray.training.config import TrainConfig

#: What a run's folder is known by; it holds what the run was started with.
MARKER = "config.json"

# Settings that may differ when a run goes on: where the data lies (its content is compared), and
# what changes how fast the run goes but not what comes out.
_FREE_SETTINGS = (
    "images",
    "masks",
    "validation_images",
    "validation_masks",
    "output",
    "workers",
    "use_gpu",
)


@dataclass(frozen=True)
class Preparation:
    """What a run starts from.

    Attributes:
        config: with the sample data set filled in where no data was named.
        output: the absolute URI of the run's folder.
        train: the pairs to learn from.
        validation: the pairs to score on.
        encoder_weights: the content of the weights file, or None.
    """

    config: TrainConfig
    output: str
    train: list[Pair]
    validation: list[Pair]
    encoder_weights: bytes | None


def prepare_training(config: TrainConfig, tell: Callable[[str], None]) -> Preparation:
    """Find the data, check the output, fetch the encoder's weights.

    Args:
        config: the flags of jobs/train.py.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: something the user gave cannot be used.
    """
    check_image_size(config.image_size)
    output = absolute_uri(config.output)
    _check_output(output, config)
    config = _with_data(config, tell)
    train, validation = _find_parts(config, tell)
    weights = read_encoder_weights(config.encoder_weights)
    return Preparation(config, output, train, validation, weights)


def _with_data(config: TrainConfig, tell: Callable[[str], None]) -> TrainConfig:
    """Fill in the sample data set where no data was named."""
    if config.images is not None:
        return config
    folder = absolute_uri(SAMPLE_FOLDER)
    write_sample(folder, tell)
    return replace(config, images=join_uri(folder, "images"), masks=join_uri(folder, "masks"))


def _find_parts(config: TrainConfig, tell: Callable[[str], None]) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on and to validate on."""
    assert config.images
    assert config.masks
    found = find_pairs(config.images, config.masks)
    lone = found.lone_images + found.lone_masks
    if config.validation_images and config.validation_masks:
        other = find_pairs(config.validation_images, config.validation_masks)
        lone += other.lone_images + other.lone_masks
        # Both parts live in one table of examples, so their keys must not meet.
        train = [replace(pair, key=f"train/{pair.key}") for pair in found.pairs]
        validation = [replace(pair, key=f"validation/{pair.key}") for pair in other.pairs]
    else:
        train, validation = split_pairs(found.pairs, config.validation_fraction, config.seed)
    left_alone = f"; {lone} file(s) have no partner and are left out" if lone else ""
    tell(f"{len(train)} pairs to train on, {len(validation)} to validate on{left_alone}")
    return train, validation


def read_marker(output: str) -> dict[str, Any]:
    """What the run in a folder was started with: ``configuration`` and ``data_fingerprint``.

    Raises:
        InputError: the folder's marker is not one that segray wrote.
    """
    uri = join_uri(output, MARKER)
    try:
        document: dict[str, Any] = json.loads(read_bytes(uri))
        if isinstance(document["configuration"], dict) and document["data_fingerprint"]:
            return document
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{uri} is no record of a training run: give another --output")


def _check_output(output: str, config: TrainConfig) -> None:
    """Refuse a folder that holds something else, or a run with other settings."""
    marker = join_uri(output, MARKER)
    if not exists(marker):
        names = child_names(output)
        if names:
            raise InputError(
                f"{output} holds something that is no training run ({', '.join(names[:3])}): "
                "give another --output, or empty the folder"
            )
        return
    before = read_marker(output)["configuration"]
    for name, value in json.loads(json.dumps(config.to_json())).items():
        if name not in _FREE_SETTINGS and before.get(name) != value:
            raise InputError(
                f"{output} holds a run with --{name.replace('_', '-')} {before.get(name)}, and "
                f"this one has {value}: give another --output, or delete that folder"
            )

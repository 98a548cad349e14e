"""The preparation of a training run: what can be checked and fetched before Ray is started."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from segray.errors import InputError
from segray.model.encoder import check_image_size, read_encoder_weights
from segray.storage.manifest import read_manifest
from segray.storage.pairs import Pair, find_pairs, split_pairs
from segray.storage.sample import SAMPLE_FOLDER, write_sample
from segray.storage.skipped import Skipped
from segray.storage.uri import absolute_uri, child_names, exists, join_uri, read_bytes
from segray.training.config import TrainConfig
from segray.training.tracking import check_tracking

#: What a run's folder is known by; it holds what the run was started with.
MARKER = "config.json"
#: The list of the files that are not used, and why.
SKIPPED = "skipped.jsonl"
#: The list of the pairs that are used, as --pairs takes it.
DATASET = "pairs.csv"

# Settings that may differ when a run goes on: where the data lies (its content is compared), and
# what changes how fast the run goes, but for rounding not what comes out.
_FREE_SETTINGS = (
    "images",
    "masks",
    "pairs",
    "validation_images",
    "validation_masks",
    "output",
    "workers",
    "use_gpu",
    "cache",
    "max_error_rate",
    "max_restarts",
    "mlflow",
    "stall_timeout",
)


@dataclass(frozen=True)
class Preparation:
    """What a run starts from.

    Attributes:
        config: with the sample data set filled in where no data was named.
        output: the absolute URI of the run's folder.
        train: the pairs to learn from.
        validation: the pairs to score on.
        skipped: the files that belong to no pair.
        encoder_weights: the content of the weights file, or None.
    """

    config: TrainConfig
    output: str
    train: list[Pair]
    validation: list[Pair]
    skipped: list[Skipped]
    encoder_weights: bytes | None


def prepare_training(config: TrainConfig, tell: Callable[[str], None]) -> Preparation:
    """Find the data, check the output, fetch the encoder's weights.

    Args:
        config: the flags of jobs/train.py.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: something the user gave cannot be used.
    """
    config.check_shares()
    check_image_size(config.image_size)
    if config.mlflow is not None:
        check_tracking(config.mlflow)
    output = absolute_uri(config.output)
    _check_output(output, config)
    config = _with_data(config, tell)
    train, validation, skipped = _find_parts(config)
    tell(f"{len(train)} pairs to train on, {len(validation)} to validate on")
    if skipped:
        tell(f"{len(skipped)} file(s) have no partner and are left out: see {SKIPPED}")
    weights = read_encoder_weights(config.encoder_weights)
    return Preparation(config, output, train, validation, skipped, weights)


def _with_data(config: TrainConfig, tell: Callable[[str], None]) -> TrainConfig:
    """Fill in the sample data set where no data was named."""
    if config.images is not None or config.pairs is not None:
        return config
    folder = absolute_uri(SAMPLE_FOLDER)
    write_sample(folder, tell)
    return replace(config, images=join_uri(folder, "images"), masks=join_uri(folder, "masks"))


def _find_parts(config: TrainConfig) -> tuple[list[Pair], list[Pair], list[Skipped]]:
    """The pairs to train on and to validate on, and the files that belong to no pair."""
    skipped: list[Skipped] = []
    if config.pairs:
        parts = read_manifest(config.pairs)
        pairs, validation = parts.get("train", []), parts.get("validation", [])
        if not pairs:
            raise InputError(f"{config.pairs} has no row to train on: give some the split train")
    else:
        assert config.images
        assert config.masks
        found = find_pairs(config.images, config.masks)
        pairs, validation, skipped = found.pairs, [], found.skipped
    if config.validation_images and config.validation_masks:
        other = find_pairs(config.validation_images, config.validation_masks)
        skipped = skipped + other.skipped
        validation = other.pairs
    if not validation:
        pairs, validation = split_pairs(pairs, config.validation_fraction, config.seed)
    return pairs, validation, skipped


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
        # A run that found too many unreadable files has left the list of them.
        names = [name for name in child_names(output) if name not in (SKIPPED, DATASET)]
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

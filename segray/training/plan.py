"""The preparation of a training run: everything that is checked and read before Ray starts."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from segray.data.labelled import Reading, digest_pair
from segray.data.pairs import Pair, check_output, find_pairs, split_pairs
from segray.data.pairs_csv import DATASET, read_dataset, select_pairs
from segray.data.pairs_table import read_manifest
from segray.data.sample import SAMPLE_FOLDER, write_sample
from segray.data.skipped import Skipped, check_error_rate, write_skipped
from segray.errors import InputError
from segray.evaluation.write import METRICS
from segray.model.architecture import check_image_size
from segray.model.bundle import has_bundle
from segray.model.encoder_weights import read_encoder_weights
from segray.model.encoders import ENCODERS
from segray.model.start import StartingModel, open_start
from segray.storage.files import child_names
from segray.storage.lock import hold_lock
from segray.storage.uri import absolute_uri, exists, join_uri
from segray.training.config import TrainConfig
from segray.training.marker import (
    DATA_SETTINGS,
    SKIPPED,
    as_recorded,
    check_settings,
    compare_versions,
    read_marker,
)
from segray.training.outputs.tracking import check_tracking

log = logging.getLogger(__name__)

#: The folder, in a run's folder, of the best model's scores on the validation set.
EVALUATION = "evaluation"
# The number of pairs of a finished run whose content is compared if the data were moved.
_COMPARED = 8

# Fewer validation images than this are reported.
_FEW = 10


@dataclass(frozen=True)
class Preparation:
    """The starting point of a run.

    Attributes:
        config: the configuration; if no data were given, those of the sample data set are filled
            in.
        output: the absolute URI of the run's folder.
        resumed: True if that folder already holds this run.
        finished: True if nothing is left to do, even if the data have been changed or deleted
            since.
        train: the training set; for a resumed run, the pairs of its training set that still exist.
        validation: the validation set; likewise.
        skipped: the files that belong to no pair.
        encoder_weights: the content of the weights file, or None for random weights; empty if the
            run already has checkpoints.
        reading: the settings with which the files of a resumed run are read; None for a new run,
            which has yet to infer them.
        start: the model that the run goes on from; None if there is none, or the run already has
            checkpoints.
    """

    config: TrainConfig
    output: str
    resumed: bool
    finished: bool
    train: list[Pair]
    validation: list[Pair]
    skipped: list[Skipped]
    encoder_weights: bytes | None
    reading: Reading | None = None
    start: StartingModel | None = None


def prepare_training(config: TrainConfig) -> Preparation:
    """Find the data, check the output, and read the encoder's weights.

    Args:
        config: the flags of jobs/train.py.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    config.check_shares()
    check_image_size(config.image_size)
    if config.mlflow is not None:
        check_tracking(config.mlflow)
    output = absolute_uri(config.output)
    marker = read_marker(output)
    resumed = marker is not None
    if marker:
        check_settings(output, marker, config)
    else:
        check_output(
            *(output, config.images, config.masks),
            *(config.validation_images, config.validation_masks),
        )
    config = _with_data(config)
    if marker and is_finished(output):
        _check_moved_data(output, marker["configuration"], config)
        return Preparation(config, output, True, True, [], [], [], b"")
    train, validation, skipped = _find_pairs(config)
    if marker:
        compare_versions(marker.get("versions", {}))
    rows = read_dataset(output) if resumed else []
    if rows:
        found = len(train) + len(validation)
        train, validation = select_pairs(rows, train, validation)
        left_out = found - len(train) - len(validation)
        if left_out > 0:
            log.info(
                f"{left_out} pair(s) are left out: the run in {output} was started without them, "
                f"see {DATASET}"
            )
    elif not validation:
        train, validation = split_pairs(train, config.validation_fraction, config.seed)
    log.info(f"training set: {len(train)} pairs, validation set: {len(validation)} pairs")
    if len(validation) < _FEW:
        log.info("so small a validation set says little about which epoch is the best")
    if len(train) < config.batch_size and config.fit != "tile":
        log.info(
            f"{len(train)} pairs do not fill a batch of --batch-size {config.batch_size}: some are "
            "repeated in a batch"
        )
    fine_tunes = config.encoder_weights != "none" and config.encoder_learning_rate > 0
    fine_tunes = fine_tunes and config.from_model is None
    if fine_tunes and config.epochs <= config.frozen_epochs:
        log.info(
            f"the encoder stays frozen: --frozen-epochs {config.frozen_epochs} of --epochs "
            f"{config.epochs}"
        )
    if skipped and not resumed:
        uri = join_uri(output, SKIPPED)
        with hold_lock(output, config.lock):
            write_skipped(uri, skipped)
        total = len(train) + len(validation) + len(skipped)
        check_error_rate(skipped, total, config.max_error_rate, uri)
        log.info(f"{len(skipped)} file(s) have no partner and are left out: see {uri}")
    # The encoder's weights are not read again if a checkpoint or the model contains them: the file
    # may no longer exist.
    has_learned = _has_learned(output)
    weights, start = read_initial_weights(config, marker, has_learned)
    reading = Reading.from_json(marker["reading"]) if marker else None
    return Preparation(
        config, output, resumed, False, train, validation, skipped, weights, reading, start
    )


def read_initial_weights(
    config: TrainConfig, before: dict[str, Any] | None, has_learned: bool = False
) -> tuple[bytes | None, StartingModel | None]:
    """Read the weights that a run starts with.

    Args:
        config: the configuration of the run.
        before: the record of the run's start if it has one, see `read_marker`.
        has_learned: True if the run has checkpoints, which contain them.

    Returns:
        The weights of the encoder, see `segray.model.unet.build_unet`, and the model that the run
        goes on from.

    Raises:
        InputError: they cannot be read, or do not fit.
    """
    if config.from_model is not None:
        if has_learned:
            return b"", None
        start = open_start(config.from_model, config.architecture, config.labels.names)
        digest = before["start"]["digest"] if before else start.digest
        if digest != start.digest:
            raise InputError(
                f"this run was started from the model {digest}, and {config.from_model} has the "
                f"model {start.digest} now: put that back, or give another --output"
            )
        return b"", start
    if has_learned and config.encoder_weights != "none":
        return b"", None
    return read_encoder_weights(config.encoder_weights, ENCODERS[config.encoder]), None


def _check_moved_data(output: str, before: dict[str, Any], config: TrainConfig) -> None:
    """Refuse to pass a finished run off as one on other data, if the location of the data changed.

    A finished run does not need its data any more, so they are looked at in this case only.
    """
    now = as_recorded(config)
    if all(now[name] == before.get(name) for name in DATA_SETTINGS):
        return
    rows = read_dataset(output)
    digests = {row[-1] for row in rows}
    train, validation, _ = _find_pairs(config)
    train, validation = select_pairs(rows, train, validation)
    found = train + validation
    compared = found[:: max(1, len(found) // _COMPARED)]
    if rows and not (found and all(digest_pair(pair) in digests for pair in compared)):
        raise InputError(
            f"{output} holds a finished run on other data, see {DATASET}: give another --output to "
            "train on this data"
        )


def is_finished(output: str) -> bool:
    """Return True if a run's folder has its model and the model's scores.

    Raises:
        InputError: the store cannot be asked.
    """
    return has_bundle(join_uri(output, "model")) and exists(join_uri(output, EVALUATION, METRICS))


def _has_learned(output: str) -> bool:
    checkpoints = child_names(join_uri(output, "checkpoints"))
    return any(name.endswith(".npz") for name in checkpoints) or has_bundle(
        join_uri(output, "model")
    )


def _with_data(config: TrainConfig) -> TrainConfig:
    """Fill in the sample data set if no data were given."""
    if config.images is not None or config.pairs is not None:
        return config
    folder = absolute_uri(SAMPLE_FOLDER)
    write_sample(folder)
    return replace(config, images=join_uri(folder, "images"), masks=join_uri(folder, "masks"))


def _find_pairs(config: TrainConfig) -> tuple[list[Pair], list[Pair], list[Skipped]]:
    """Return the training pairs, the validation pairs if they are given, and unpaired files."""
    skipped: list[Skipped] = []
    suffixes = config.image_suffix, config.mask_suffix
    if config.pairs:
        parts = read_manifest(*config.pairs)
        pairs, validation = parts.get("train", []), parts.get("validation", [])
        if not pairs:
            raise InputError(
                f"{' '.join(config.pairs)} has no row to train on: give some the split train"
            )
    else:
        assert config.images
        assert config.masks
        found = find_pairs(config.images, config.masks, *suffixes)
        pairs, validation, skipped = found.pairs, [], found.skipped
    if config.validation_images and config.validation_masks:
        other = find_pairs(config.validation_images, config.validation_masks, *suffixes)
        skipped = skipped + other.skipped
        validation = other.pairs
        learned = {pair.image for pair in pairs}
        if both := [pair.image for pair in validation if pair.image in learned]:
            raise InputError(
                f"{len(both)} image(s) are in both --images and --validation-images, such as "
                f"{both[0]}: scores on the training set mean nothing; give separate folders"
            )
    return pairs, validation, skipped

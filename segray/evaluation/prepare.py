"""The preparation of an evaluation: what can be checked before Ray is started."""

from collections.abc import Callable
from dataclasses import dataclass

from segray.errors import InputError
from segray.evaluation.config import EvaluateConfig
from segray.evaluation.write import METRICS, NAMES, SKIPPED
from segray.model.bundle import Bundle, open_bundle
from segray.model.predictor import choose_engine, engine_file
from segray.storage.files import child_names, read_bytes, remove
from segray.storage.lock import LOCK, hold_lock
from segray.storage.manifest import DATASET, DATASET_COLUMNS, SPLITS, read_manifest
from segray.storage.pairs import Pair, Pairing, find_pairs
from segray.storage.sample import SAMPLE_FOLDER, write_sample
from segray.storage.skipped import check_error_rate, write_skipped
from segray.storage.uri import absolute_uri, exists, join_uri


@dataclass(frozen=True)
class Preparation:
    """What an evaluation starts from.

    Attributes:
        config: the flags.
        output: the absolute URI of the folder to write.
        bundle: the model, with the file that the engine reads.
        pairing: the pairs to score on, and the files that belong to no pair.
    """

    config: EvaluateConfig
    output: str
    bundle: Bundle
    pairing: Pairing


def prepare_evaluation(config: EvaluateConfig, tell: Callable[[str], None]) -> Preparation:
    """Open the model, check the output, find the pairs.

    Args:
        config: the flags of jobs/evaluate.py.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: something the user gave cannot be used.
    """
    output = absolute_uri(config.output)
    engine = choose_engine(config.engine, config.use_gpu)
    bundle = open_bundle(config.model, [engine_file(engine)])
    _check_output(output)
    pairing = _find_pairs(config, tell)
    _tell_what_was_learned(bundle, pairing.pairs, tell)
    if pairing.skipped:
        uri, metrics = join_uri(output, SKIPPED), join_uri(output, METRICS)
        with hold_lock(output, tell):
            if exists(metrics):
                remove(metrics)  # it says that what is beside it belongs to it
            write_skipped(uri, pairing.skipped)
        tell(f"{len(pairing.skipped)} file(s) have no partner and are left out: see {uri}")
        total = len(pairing.pairs) + len(pairing.skipped)
        check_error_rate(pairing.skipped, total, config.max_error_rate, uri)
    return Preparation(config, output, bundle, pairing)


def _find_pairs(config: EvaluateConfig, tell: Callable[[str], None]) -> Pairing:
    if config.pairs is not None:
        return Pairing(_read_split(config.pairs, config.split or "test"), [])
    if config.images is not None and config.masks is not None:
        return find_pairs(config.images, config.masks)
    write_sample(SAMPLE_FOLDER, tell)
    tell("scoring the labelled sample images")
    folder = absolute_uri(SAMPLE_FOLDER)
    return find_pairs(join_uri(folder, "images"), join_uri(folder, "masks"))


def _read_split(uri: str, split: str) -> list[Pair]:
    parts = read_manifest(uri)
    pairs = parts[SPLITS[split.lower()]]
    if not pairs:
        filled = " or ".join(f"--split {name}" for name, found in parts.items() if found)
        raise InputError(f"{uri} has no pair in the split {split}: give {filled}")
    return pairs


def _tell_what_was_learned(bundle: Bundle, pairs: list[Pair], tell: Callable[[str], None]) -> None:
    """Say how many images the model knows, where its run's folder is around it still."""
    uri = join_uri(bundle.uri.rpartition("/")[0], DATASET)
    try:
        header = ",".join(DATASET_COLUMNS).encode()
        if not exists(uri) or not read_bytes(uri).startswith(header):
            return  # nothing, or another table of that name
        parts = read_manifest(uri)
    except InputError:
        return  # in a folder that one may not read, or damaged
    for part, what in (
        ("train", "that the model has learned from"),
        ("validation", "by which the model's epoch was chosen"),
    ):
        known = {pair.image for pair in parts[part]}
        count = sum(pair.image in known for pair in pairs)
        if count:
            tell(f"{count} of these {len(pairs)} images are among those {what}: see {uri}")


def _check_output(output: str) -> None:
    foreign = [name for name in child_names(output) if name not in (*NAMES, LOCK)]
    if foreign:
        raise InputError(
            f"{output} holds something that is no evaluation ({', '.join(foreign[:3])}): "
            "give another --output, or empty the folder"
        )

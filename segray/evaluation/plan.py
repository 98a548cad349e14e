"""The preparation of an evaluation: everything that is checked before Ray starts."""

import logging
from dataclasses import dataclass, replace

from segray.data.pairs import Pair, Pairing, check_output, find_pairs
from segray.data.pairs_csv import DATASET, read_dataset
from segray.data.pairs_table import SPLITS, read_manifest
from segray.data.sample import SAMPLE_FOLDER, write_sample
from segray.data.skipped import check_error_rate, write_skipped
from segray.errors import InputError
from segray.evaluation.config import EvaluateConfig
from segray.evaluation.write import METRICS, NAMES, SKIPPED
from segray.model.bundle import Bundle, open_bundle
from segray.model.predictor import choose_engine, engine_file
from segray.storage.files import remove
from segray.storage.lock import hold_lock
from segray.storage.output import Output
from segray.storage.uri import absolute_uri, join_uri

log = logging.getLogger(__name__)

# Ray takes as long to start as this many images take to be scored.
_SMALL = 1000


@dataclass(frozen=True)
class Preparation:
    """The starting point of an evaluation.

    Attributes:
        config: the flags, with the split of --pairs that is scored.
        output: the absolute URI of the output folder.
        bundle: the model, with the file that the engine reads.
        pairing: the pairs to score, and the files that belong to no pair.
    """

    config: EvaluateConfig
    output: str
    bundle: Bundle
    pairing: Pairing

    @property
    def is_small(self) -> bool:
        """True if the job's own process is done sooner than Ray has started."""
        few = len(self.pairing.pairs) <= _SMALL and self.bundle.fit != "tile"
        return few and not self.config.use_gpu


def prepare_evaluation(config: EvaluateConfig) -> Preparation:
    """Open the model, check the output, and find the pairs.

    Args:
        config: the flags of jobs/evaluate.py.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    output = absolute_uri(config.output)
    engine = choose_engine(config.engine)
    bundle = open_bundle(config.model, [engine_file(engine)])
    bundle.check_overlap(config.overlap)
    check_output(output, config.images, config.masks)
    Output(output, "evaluation", NAMES).check()
    config, pairing = _find_pairs(config)
    _report_what_was_learned(bundle, pairing.pairs)
    if pairing.skipped:
        uri = join_uri(output, SKIPPED)
        with hold_lock(output, config.lock):
            remove(join_uri(output, METRICS))  # it marks the files beside it as complete
            write_skipped(uri, pairing.skipped)
        log.info(f"{len(pairing.skipped)} file(s) have no partner and are left out: see {uri}")
        total = len(pairing.pairs) + len(pairing.skipped)
        check_error_rate(pairing.skipped, total, config.max_error_rate, uri)
    return Preparation(config, output, bundle, pairing)


def _find_pairs(config: EvaluateConfig) -> tuple[EvaluateConfig, Pairing]:
    if config.pairs is not None:
        split, pairs = _read_split(config.pairs, config.split)
        return replace(config, split=split), Pairing(pairs, [])
    if config.images is not None and config.masks is not None:
        suffixes = config.image_suffix, config.mask_suffix
        return config, find_pairs(config.images, config.masks, *suffixes)
    write_sample(SAMPLE_FOLDER)
    log.info("scoring the labelled sample images")
    folder = absolute_uri(SAMPLE_FOLDER)
    return config, find_pairs(join_uri(folder, "images"), join_uri(folder, "masks"))


def _read_split(uri: str, split: str | None) -> tuple[str, list[Pair]]:
    """Read a split of a table of pairs: by default test, or the only split that there is."""
    parts = {name: pairs for name, pairs in read_manifest(uri).items() if pairs}
    if split is None and len(parts) == 1:
        split = next(iter(parts))
        if split != "test":
            log.info(f"{uri} has no test split: scoring all of its pairs")
    chosen = SPLITS[(split or "test").lower()]
    if chosen not in parts:
        filled = " or ".join(f"--split {name}" for name in parts)
        raise InputError(f"{uri} has no pair in the split {chosen}: give {filled}")
    return chosen, parts[chosen]


def _report_what_was_learned(bundle: Bundle, pairs: list[Pair]) -> None:
    """Report how many images the model was trained on, if its run's folder still exists."""
    output = bundle.uri.rpartition("/")[0]
    try:
        rows = read_dataset(output)
    except InputError:
        return  # the folder may not be readable
    for part, what in (
        ("train", "in the training set of the model"),
        ("validation", "in the validation set of the model"),
    ):
        known = {image for image, _, split, *_ in rows if split == part}
        count = sum(pair.image in known for pair in pairs)
        if count:
            uri = join_uri(output, DATASET)
            log.info(f"{count} of these {len(pairs)} images were {what}: see {uri}")

"""A training run: from pairs of images and masks to a model bundle."""

import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from segray.data.skipped import check_error_rate, describe_first, write_skipped
from segray.errors import InputError
from segray.evaluation.run import evaluate_pairs
from segray.evaluation.write import METRICS
from segray.model.bundle import DESCRIPTION, has_bundle
from segray.nodes import (
    SharedFiles,
    worker_nodes,
)
from segray.pixels.expected import find_usual_shares
from segray.storage.files import read_bytes, remove, remove_partial
from segray.storage.lock import hold_lock
from segray.storage.output import SETTINGS
from segray.storage.uri import exists, join_uri
from segray.ticker import ticking
from segray.training.control.assignment import Assignment
from segray.training.control.checkpoint import Checkpoints
from segray.training.control.fit import fit
from segray.training.data.dataset import DataSet
from segray.training.data.gathering import gather_data
from segray.training.marker import SKIPPED, read_marker, write_marker
from segray.training.outputs.tracking import History, tracking
from segray.training.plan import EVALUATION, Preparation, is_finished, read_initial_weights
from segray.training.reference import make_reference

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class TrainSummary:
    """The result of a run.

    Attributes:
        output: the absolute URI of the run's folder.
        epochs: the number of finished epochs.
        best: the record of the best epoch, as in metrics.jsonl.
        evaluation: the scores of the best epoch's model, as in metrics.json of the folder
            `EVALUATION`.
    """

    output: str
    epochs: int
    best: dict[str, Any]
    evaluation: dict[str, Any]


def train(preparation: Preparation) -> TrainSummary:
    """Train, and write the output folder. Ray must have been started, unless the run is finished.

    An interrupted run resumes after its last finished epoch.

    Args:
        preparation: the result of `segray.training.plan.prepare_training`.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    config, output = preparation.config, preparation.output
    with hold_lock(output, config.lock) as check_lock, _ending_with(check_lock):
        if (read_marker(output) is not None) != preparation.resumed:
            raise InputError(f"another run has begun or removed {output} just now: run again")
        # A finished run does not need its data any more.
        finished = preparation.finished or is_finished(output)
        data = None if finished else _claim_data(preparation)
        marker = read_marker(output)
        assert marker
        record = {
            "configuration": config.to_json(),
            "command": sys.argv,
            "data_fingerprint": marker["data_fingerprint"],
            "start": marker.get("start"),
        }
        with tracking(config.mlflow, output, record) as track:
            if data is None:
                log.info("this run is finished already; for another run give another --output")
            else:
                _learn(preparation, data, record, track)
                check_lock()
                _evaluate(preparation, data)
                check_lock()
                # Temporary files of processes that were killed while writing.
                remove_partial(output, deep=True)
            history = _read_history(output)
            track(history)
        uris = join_uri(output, "model", DESCRIPTION), join_uri(output, EVALUATION, METRICS)
        document = _parse(uris[0], read_bytes(uris[0]), "metrics")
        evaluation = _parse(uris[1], read_bytes(uris[1]), "model_resolution")
        return TrainSummary(output, len(history), document["metrics"], evaluation)


@contextlib.contextmanager
def _ending_with(check_lock: Callable[[], None]) -> Iterator[None]:
    """Interrupt the block if the lock is lost, because two runs would then mix their files."""
    lost = threading.Event()

    def look() -> None:
        try:
            check_lock()
        except InputError:
            if not lost.is_set():
                lost.set()
                # Only a signal ends Ray Train's workers from here. A background job may ignore
                # SIGINT; then SIGTERM is sent.
                for number in (signal.SIGINT, signal.SIGTERM):
                    if callable(signal.getsignal(number)):
                        signal.pthread_kill(threading.main_thread().ident or 0, number)
                        break

    try:
        with ticking(_SECONDS_BETWEEN_LOOKS, look):
            yield
    except (KeyboardInterrupt, SystemExit):
        check_lock()
        raise
    check_lock()


def _learn(
    preparation: Preparation,
    data: DataSet,
    record: dict[str, Any],
    track: Callable[[History], None],
) -> None:
    """Train, unless there is a model already."""
    config, output = preparation.config, preparation.output
    model = join_uri(output, "model")
    if has_bundle(model):
        return
    weights, start = preparation.encoder_weights, preparation.start
    if preparation.resumed:
        if Checkpoints(join_uri(output, "checkpoints")).newest():
            if exists(model):
                log.info(f"{model} is not whole: it is made again from the checkpoints")
        elif exists(join_uri(output, EVALUATION, METRICS)):
            raise InputError(
                f"{model} is gone or not whole, and there is no checkpoint to make it from: copy "
                f"it again, or delete {output} to train anew"
            )
        elif weights == b"" and start is None:
            # None of the checkpoints is intact, so the run starts over.
            weights, start = read_initial_weights(config, read_marker(output))
    # The scores of a model that is lost would mark the next one as finished.
    remove(join_uri(output, EVALUATION, METRICS))
    if config.use_gpu:
        _report_holders(data)
    assignment = Assignment(
        config=config,
        output=output,
        shared=SharedFiles.of({"--output": join_uri(output, SETTINGS)}),
        train=data.train.examples,
        validation=data.validation.examples,
        class_weights=config.weigh_classes(data.train.class_pixels.sum(axis=0)),
        encoder_weights=None if weights is None else ray.put(weights),
        start=None if start is None else ray.put(start),
        record={**record, "usual_shares": find_usual_shares(data.train.class_pixels)},
    )
    fit(assignment, track)


def _report_holders(data: DataSet) -> None:
    """Report nodes without a GPU that cannot be released because they hold decoded examples."""
    holders = data.train.examples.holders() | data.validation.examples.holders()
    idle = [n for n in worker_nodes() if n.id in holders and not n.total.get("GPU")]
    if idle:
        log.info(
            f"{len(idle)} node(s) without a GPU stay up as long as this run, for the decoded "
            "examples that they hold; with --cache none they may go"
        )


def _evaluate(preparation: Preparation, data: DataSet) -> None:
    """Score the model on the whole validation set, and keep what its images look like."""
    config, output = preparation.config, preparation.output
    evaluation = evaluate_pairs(
        join_uri(output, "model"),
        data.validation.examples.pairs,
        join_uri(output, EVALUATION),
        # With GPUs the engine that has just used them.
        engine="tensorflow" if config.workers_use_gpu else "auto",
        workers=0 if config.most_workers == 0 else None,
        use_gpu=config.workers_use_gpu,
        shared=data.validation.examples.shared,
        mask_orientation=data.reading.mask_orientation,
        configuration=config.to_json(),
        scored=partial(make_reference, data=data, seed=config.seed),
    )
    if evaluation.skipped:
        # Without this file the run is not finished.
        remove(join_uri(output, EVALUATION, METRICS))
        raise InputError(
            f"{len(evaluation.skipped)} pair(s) of the validation set cannot be read any more, "
            f"the first: {evaluation.skipped[0].reason}; the model is trained: put the data back "
            "and run the same command again to score it"
        )


def _claim_data(preparation: Preparation) -> DataSet:
    """Decode the data, and claim the folder for this run or verify that it belongs to it."""
    data = gather_data(preparation)
    if preparation.resumed:
        data.check(preparation.output, preparation.train + preparation.validation)
    else:
        _report_skipped(preparation, data)
    _check_labels(preparation, data)
    copies = set(data.train.digests) & set(data.validation.digests)
    if copies:
        log.info(
            f"{len(copies)} pair(s) of the validation set are copies of pairs of the training set: "
            "their scores mean nothing"
        )
    if not preparation.resumed:
        data.write(preparation.output)
        write_marker(
            *(preparation.output, preparation.config, data.fingerprint, data.reading),
            preparation.start,
        )
    return data


def _report_skipped(preparation: Preparation, data: DataSet) -> None:
    """Record the skipped files; raise an error if there are too many or no others."""
    output = preparation.output
    skipped, uri = preparation.skipped + data.skipped, join_uri(output, SKIPPED)
    if skipped or exists(uri):
        write_skipped(uri, skipped)
    total = len(preparation.train) + len(preparation.validation) + len(preparation.skipped)
    check_error_rate(skipped, total, preparation.config.max_error_rate, uri)
    if data.skipped:
        log.info(
            f"{len(data.skipped)} pair(s) cannot be used, {describe_first(data.skipped)}; see {uri}"
        )
    train, validation = len(data.train.examples), len(data.validation.examples)
    if not train or not validation:
        raise InputError(
            f"{train} pairs are left to train on and {validation} to validate on: see {uri}"
        )


def _check_labels(preparation: Preparation, data: DataSet) -> None:
    """Raise an error if a split has no labelled pixel; report classes absent from a split."""
    labels = preparation.config.labels
    names = labels.names
    for what, part in (("training", data.train), ("validation", data.validation)):
        pixels = part.class_pixels.sum(axis=0)
        if not pixels.any():
            raise InputError(
                f"no pixel of the {what} set is labelled: every value there is one of "
                "--ignore-values, or ignored by --ignore-others"
            )
        if labels.others_ignored:
            share = 1 - pixels.sum() / part.examples.sizes.prod(axis=1).sum()
            log.info(f"{share:.1%} of the pixels of the {what} set are ignored")
        absent = [name for name, count in zip(names, pixels, strict=True) if not count]
        if absent:
            log.info(f"no pixel of the {what} set is of the class {' or '.join(absent)}")


def _read_history(output: str) -> list[dict[str, Any]]:
    uri = join_uri(output, "metrics.jsonl")
    return [_parse(uri, line, "epoch") for line in read_bytes(uri).splitlines()]


def _parse(uri: str, text: bytes, key: str) -> dict[str, Any]:
    """Parse a JSON object, and require that it has a key."""
    with contextlib.suppress(ValueError):
        document = json.loads(text)
        if isinstance(document, dict) and key in document:
            return document
    raise InputError(
        f"{uri} is damaged: delete it with the folder model/, and run again; both are made anew "
        "from the checkpoints"
    )

"""A training run: from two folders to a model bundle."""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray
import ray.train
from ray.train.tensorflow import TensorflowTrainer

from segray.errors import InputError
from segray.model.bundle import DESCRIPTION
from segray.storage.skipped import check_error_rate, write_skipped
from segray.storage.uri import (
    exists,
    file_system,
    is_local,
    join_uri,
    read_bytes,
    write_bytes,
)
from segray.training.config import TrainConfig
from segray.training.examples import Decoded, decode_pairs
from segray.training.loop import Assignment, TrainingLoop
from segray.training.messages import Messages, relay_messages
from segray.training.prepare import MARKER, SKIPPED, Preparation, read_marker
from segray.training.worker import set_up_tensorflow, train_worker

# The part of a node's object store that decoded examples may take.
_STORE_SHARE = 0.5


@dataclass(frozen=True)
class TrainSummary:
    """What came of a run.

    Attributes:
        output: the absolute URI of the run's folder.
        epochs: how many epochs are finished.
        best: the record of the best epoch, as in metrics.jsonl.
    """

    output: str
    epochs: int
    best: dict[str, Any]


def train(preparation: Preparation, tell: Callable[[str], None]) -> TrainSummary:
    """Train, and write the output folder; Ray has been started.

    A run that was interrupted goes on after its last finished epoch.

    Args:
        preparation: of `segray.training.prepare.prepare_training`.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: something the user gave cannot be used.
    """
    config, output = preparation.config, preparation.output
    decoded, training = _decode(preparation, tell)
    # The same files, parted otherwise, are another run.
    fingerprint = f"{decoded.fingerprint}-{len(training)}"
    _claim_output(output, config, fingerprint)
    if exists(join_uri(output, "model", DESCRIPTION)):
        tell("this run is finished; nothing to do")
        return _summarise(output)

    cpus, threads = _worker_cpus(config)
    weights = preparation.encoder_weights
    examples, pixels = decoded.examples, decoded.class_pixels[training].sum(axis=0)
    validation = range(len(training), len(examples))
    assignment = Assignment(
        config=config,
        output=output,
        train=examples.select(training),
        validation=examples.select(validation),
        class_weights=config.weigh_classes(pixels),
        encoder_weights=None if weights is None else ray.put(weights),
        record={
            "configuration": config.to_json(),
            "command": sys.argv,
            "data_fingerprint": fingerprint,
        },
        threads=threads,
    )
    if config.workers:
        with relay_messages(tell) as messages:
            tell(f"starting {config.workers} worker(s) on {cpus:g} CPU(s) each")
            _fit(assignment, cpus, messages)
    else:
        _train_here(assignment, tell)
    return _summarise(output)


def _decode(preparation: Preparation, tell: Callable[[str], None]) -> tuple[Decoded, Sequence[int]]:
    """All examples, those to train on first, and the indices of these."""
    config, output = preparation.config, preparation.output
    pairs = preparation.train + preparation.validation
    keep = _fits(len(pairs), config, tell)
    started = time.monotonic()
    progress = _progress(len(pairs), tell)
    decoded = decode_pairs(pairs, config.labels, config.image_size, keep, progress)
    tell(f"decoded {len(pairs)} pairs in {time.monotonic() - started:.0f} s")
    skipped = preparation.skipped + decoded.skipped
    uri = join_uri(output, SKIPPED)
    if skipped or exists(uri):
        write_skipped(uri, skipped)
    if decoded.skipped:
        tell(f"{len(decoded.skipped)} pair(s) cannot be used: see {uri}")
    total = len(pairs) + len(preparation.skipped)
    check_error_rate(skipped, total, config.max_error_rate, uri)
    training = range(int((decoded.kept < len(preparation.train)).sum()))
    if not 0 < len(training) < len(decoded.kept):
        raise InputError(
            f"{len(training)} pairs are left to train on and {len(decoded.kept) - len(training)} "
            f"to validate on: see {uri}"
        )
    return decoded, training


def _fits(count: int, config: TrainConfig, tell: Callable[[str], None]) -> bool:
    """Whether the decoded examples are to be kept in Ray's object store."""
    needed = count * config.image_size**2 * (3 + 1)
    # Each node that trains maps all examples, so they have to fit into the smallest store.
    stores = [
        node["Resources"].get("object_store_memory", 0.0)
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    ]
    room = _STORE_SHARE * min(stores, default=0.0)
    keep = needed <= room if config.cache == "auto" else config.cache == "memory"
    where = "are kept in memory" if keep else "are decoded anew each epoch"
    tell(f"examples take {needed / 1e9:.2f} GB decoded, {room / 1e9:.2f} GB are free: they {where}")
    return keep


def _claim_output(output: str, config: TrainConfig, fingerprint: str) -> None:
    """Mark the folder as this run's, or make sure that the run in it learned the same data."""
    marker = join_uri(output, MARKER)
    if not exists(marker):
        document = {"configuration": config.to_json(), "data_fingerprint": fingerprint}
        write_bytes(marker, json.dumps(document, indent=2).encode())
    elif read_marker(output)["data_fingerprint"] != fingerprint:
        raise InputError(
            f"{output} holds a run on other data: give another --output, or delete that folder"
        )


def _worker_cpus(config: TrainConfig) -> tuple[float, int]:
    """How many CPUs a worker asks Ray for, and how many threads it computes with (0: its pick)."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    if config.use_gpu or not config.workers or not any(nodes):
        return 1.0, 0
    for cpus in range(int(max(nodes)), 0, -1):
        if sum(node // cpus for node in nodes) >= config.workers:
            return float(cpus), cpus
    # More workers than CPUs: each gets an equal part of one, rounded down so that all fit.
    parts = next(n for n in count(2) if sum(int(node * n) for node in nodes) >= config.workers)
    return math.floor(10_000 / parts) / 10_000, 1


def _train_here(assignment: Assignment, tell: Callable[[str], None]) -> None:
    """Go through the loop in this process."""
    import tensorflow as tf

    set_up_tensorflow(assignment)
    problem = TrainingLoop(assignment, tf.distribute.get_strategy(), 0, 1, tell).run()
    if problem:
        raise InputError(problem)


def _fit(assignment: Assignment, cpus: float, messages: Messages) -> None:
    config, output = assignment.config, assignment.output
    local = is_local(output)
    trainer = TensorflowTrainer(
        train_worker,
        train_loop_config={"assignment": assignment, "messages": messages},
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": cpus, **({"GPU": 1} if config.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            # Ray Train's own state; the run's checkpoints are segray's, one file each.
            name="checkpoints",
            storage_path=output if local else output.removeprefix("s3://"),
            # One S3 client everywhere, so that one environment configures all.
            storage_filesystem=None if local else _arrow_file_system(output),
            failure_config=ray.train.FailureConfig(max_failures=config.max_restarts),
        ),
    )
    try:
        trainer.fit()
    except SystemExit as stop:
        # How Ray Train ends a run when the keyboard interrupts it.
        raise KeyboardInterrupt from stop
    except ray.train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, InputError):
                raise failure from error
        if problem := messages.problem():
            raise InputError(problem) from error
        raise
    if not exists(join_uri(output, "model", DESCRIPTION)):
        raise InputError(messages.problem())


def _arrow_file_system(uri: str) -> Any:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    return PyFileSystem(FSSpecHandler(file_system(uri)))


def _summarise(output: str) -> TrainSummary:
    history = [
        json.loads(line) for line in read_bytes(join_uri(output, "metrics.jsonl")).splitlines()
    ]
    document = json.loads(read_bytes(join_uri(output, "model", DESCRIPTION)))
    return TrainSummary(output, len(history), document["metrics"])


def _progress(total: int, tell: Callable[[str], None]) -> Callable[[int], None]:
    """A line every ten seconds while pairs are decoded."""
    started = told = time.monotonic()

    def progress(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > 10:
            told = now
            rate = done / (now - started)
            tell(f"decoding: {done}/{total} pairs, {(total - done) / rate:.0f} s left")

    return progress

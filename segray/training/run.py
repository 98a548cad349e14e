"""A training run: from two folders to a model bundle."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray
import ray.train
from ray.train.tensorflow import TensorflowTrainer

from segray.errors import InputError
from segray.model.bundle import DESCRIPTION
from segray.storage.uri import (
    exists,
    file_system,
    is_local,
    join_uri,
    read_bytes,
    write_bytes,
)
from segray.training.config import TrainConfig
from segray.training.examples import decode_pairs
from segray.training.messages import relay_messages
from segray.training.prepare import MARKER, Preparation, read_marker
from segray.training.worker import Assignment, train_worker


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
    pairs = preparation.train + preparation.validation
    trained_on = len(preparation.train)
    started = time.monotonic()
    examples, fingerprint = decode_pairs(
        pairs, config.labels, config.image_size, _progress(len(pairs), tell)
    )
    # The same files, parted otherwise, are another run.
    fingerprint = f"{fingerprint}-{trained_on}"
    tell(f"decoded {len(pairs)} pairs in {time.monotonic() - started:.0f} s")
    _claim_output(output, config, fingerprint)
    if exists(join_uri(output, "model", DESCRIPTION)):
        tell("this run is finished; nothing to do")
        return _summarise(output)

    cpus, threads = _worker_cpus(config)
    weights = preparation.encoder_weights
    with relay_messages(tell) as messages:
        assignment = Assignment(
            config=config,
            output=output,
            train=examples.select(range(trained_on)),
            validation=examples.select(range(trained_on, len(pairs))),
            encoder_weights=None if weights is None else ray.put(weights),
            data_fingerprint=fingerprint,
            threads=threads,
            tell=messages,
        )
        tell(f"starting {config.workers} worker(s) on {cpus:g} CPU(s) each")
        _fit(assignment, cpus)
    return _summarise(output)


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
    if config.use_gpu or not any(nodes):
        return 1.0, 0
    for cpus in range(int(max(nodes)), 0, -1):
        if sum(node // cpus for node in nodes) >= config.workers:
            return float(cpus), cpus
    # More workers than CPUs: each gets an equal part of one, rounded down so that all fit.
    parts = next(n for n in count(2) if sum(int(node * n) for node in nodes) >= config.workers)
    return math.floor(10_000 / parts) / 10_000, 1


def _fit(assignment: Assignment, cpus: float) -> None:
    config, output = assignment.config, assignment.output
    local = is_local(output)
    trainer = TensorflowTrainer(
        train_worker,
        train_loop_config={"assignment": assignment},
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": cpus, **({"GPU": 1} if config.use_gpu else {})},
        ),
        run_config=ray.train.RunConfig(
            name="checkpoints",
            storage_path=output if local else output.removeprefix("s3://"),
            # One S3 client everywhere, so that one environment configures all.
            storage_filesystem=None if local else _arrow_file_system(output),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
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
        raise


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

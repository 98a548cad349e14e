"""The worker: the training loop that each process of a run goes through."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import ray
import ray.train
import tensorflow as tf

from segray.errors import InputError
from segray.model.bundle import write_bundle
from segray.model.unet import build_unet
from segray.pixels.metrics import class_iou, confusion_matrix, mean_iou, pixel_accuracy
from segray.storage.uri import join_uri
from segray.training.batches import draw_epoch, steps_per_epoch
from segray.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from segray.training.config import TrainConfig
from segray.training.examples import Examples
from segray.training.network import TrainableNetwork
from segray.training.records import write_events, write_preview, write_records

_PREVIEWS = 4
_SCORE_BATCH = 32
_SECONDS_BETWEEN_STEP_REPORTS = 10.0


@dataclass(frozen=True)
class Assignment:
    """What the driver hands to each worker.

    Attributes:
        config: of the run.
        output: the absolute URI of the run's folder.
        train: the examples to learn from.
        validation: the examples to score on.
        encoder_weights: a reference to the content of the weights file, or None.
        data_fingerprint: a digest of all files that the examples came from.
        threads: how many cores a worker computes on; 0 leaves it to TensorFlow.
        tell: is called on rank 0 with a line for the driver's terminal.
    """

    config: TrainConfig
    output: str
    train: Examples
    validation: Examples
    encoder_weights: "ray.ObjectRef[bytes] | None"
    data_fingerprint: str
    threads: int
    tell: Callable[[str], None]


def train_worker(settings: dict[str, Any]) -> None:
    """Ray Train's entry: ``settings["assignment"]`` is an `Assignment`."""
    start_worker(settings["assignment"]).run()


def start_worker(assignment: Assignment) -> "Worker":
    """Set up this process of a Ray Train run."""
    if assignment.threads:
        tf.config.threading.set_intra_op_parallelism_threads(assignment.threads)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    context = ray.train.get_context()
    return Worker(assignment, strategy, context.get_world_rank(), context.get_world_size())


class Worker:
    """One process of a run.

    Args:
        assignment: the same for every worker.
        strategy: of this process.
        rank: of this worker, from 0; only rank 0 writes files.
        workers: how many there are.

    Attributes:
        network: what is trained; equal on all workers after every step.
    """

    def __init__(
        self, assignment: Assignment, strategy: tf.distribute.Strategy, rank: int, workers: int
    ) -> None:
        config = assignment.config
        self._assignment, self._config = assignment, config
        self._rank, self._workers = rank, workers
        self._train = assignment.train.fetch()
        self._validation = assignment.validation.fetch()
        weights = assignment.encoder_weights
        # The same numbers on every worker: each builds the same network.
        keras.utils.set_random_seed(config.seed)
        self.network = TrainableNetwork(
            strategy,
            len(config.labels),
            config.image_size,
            None if weights is None else ray.get(weights),
            config.learning_rate,
        )

    def run(self) -> None:
        """Train from the last finished epoch to the last one, then write the bundle."""
        progress = self._resume()
        if self._rank == 0 and progress.epoch:
            self._assignment.tell(f"going on after epoch {progress.epoch}, the last one saved")
        if self._rank == 0 and progress.epoch < self._config.epochs:
            self._assignment.tell("compiling the network; the first step takes a while")
        for epoch in range(progress.epoch + 1, self._config.epochs + 1):
            record = self._run_epoch(epoch)
            if self._rank == 0:
                self._keep(record, progress)
            self._report(record, progress)
            if self._rank == 0:
                self._tell_epoch(record)
        if self._rank == 0:
            self._write_model(progress)

    def _resume(self) -> Progress:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return Progress()
        with checkpoint.as_directory() as folder:
            return load_checkpoint(Path(folder), self.network.model, self.network.optimizer)

    def _run_epoch(self, epoch: int) -> dict[str, Any]:
        """One pass over the training part, then the scores; a record for metrics.jsonl."""
        started = time.monotonic()
        train_loss, rate = self._learn(epoch)
        learned = time.monotonic()
        scores = self._score()
        # What an epoch takes without the compiling that the first one includes.
        self._epoch_seconds = len(self._train) / rate + time.monotonic() - learned
        if not np.isfinite(train_loss) or scores["loss"] is None:
            raise InputError(
                f"the loss is no number any more in epoch {epoch}: lower --learning-rate "
                f"{self._config.learning_rate:g}, and give another --output"
            )
        return {
            "epoch": epoch,
            "train_loss": _number(train_loss),
            **scores,
            "images_per_second": round(rate, 2),
            "seconds": round(time.monotonic() - started, 2),
        }

    def _learn(self, epoch: int) -> tuple[float, float]:
        """One pass over the training part: its mean loss, and the images per second."""
        config = self._config
        steps = steps_per_epoch(len(self._train), config.batch_size)
        summed = pixels = rate = 0.0
        started = told = time.monotonic()
        batches = draw_epoch(
            len(self._train), config.batch_size, config.seed, epoch, self._rank, self._workers
        )
        for step, batch in enumerate(batches, start=1):
            step_loss, step_pixels = self.network.train(
                *self._train.batch(batch.indices), batch.flips
            )
            summed, pixels = summed + step_loss, pixels + step_pixels
            now = time.monotonic()
            if step == 1 and steps > 1:
                # A run's first step compiles the graph: the rate counts from its end.
                started = now
                continue
            rate = max(step - 1, 1) * config.batch_size / (now - started)
            if self._rank == 0 and now - told > _SECONDS_BETWEEN_STEP_REPORTS:
                told = now
                self._assignment.tell(
                    f"epoch {epoch:>3}/{config.epochs}  step {step}/{steps}  "
                    f"training loss {summed / max(pixels, 1):.3f}  {rate:.1f} images/s"
                )
        return summed / max(pixels, 1), rate

    def _score(self) -> dict[str, Any]:
        """The metrics of the validation part; each of its images is counted exactly once."""
        names = self._config.labels.names
        classes = len(names)
        confusion = np.zeros((classes, classes), dtype=np.int64)
        loss = 0.0
        mine = np.arange(self._rank, len(self._validation), self._workers)
        for start in range(0, len(mine), _SCORE_BATCH):
            images, masks = self._validation.batch(mine[start : start + _SCORE_BATCH])
            predicted, batch_loss = self.network.score(images, masks)
            confusion += confusion_matrix(masks, predicted, classes)
            loss += batch_loss
        confusion, loss = self.network.sum_over_replicas(confusion, loss)
        if not confusion.any():
            raise InputError(
                "no pixel of the validation part is labelled: every value there is one of "
                "--ignore-values"
            )
        iou = class_iou(confusion)
        return {
            "loss": _number(loss / int(confusion.sum())),
            "accuracy": _number(pixel_accuracy(confusion)),
            "mean_iou": _number(mean_iou(confusion)),
            **{f"iou_{name}": _number(value) for name, value in zip(names, iou, strict=True)},
        }

    def _keep(self, record: dict[str, Any], progress: Progress) -> None:
        """Take an epoch into the history, and its weights where they are the best so far."""
        progress.history.append(record)
        scores = [epoch["mean_iou"] for epoch in progress.history]
        if progress.best_epoch == 0 or scores[-1] > max(scores[:-1]):
            progress.best_epoch = record["epoch"]
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "best.weights.h5")
                self.network.model.save_weights(path)
                progress.best_weights = path.read_bytes()
        images, masks = self._validation.batch(np.arange(min(_PREVIEWS, len(self._validation))))
        predicted, _ = self.network.score(images, masks)
        output, labels = self._assignment.output, self._config.labels
        write_preview(output, record["epoch"], images, masks, predicted, labels)
        write_records(output, progress.history, labels)
        write_events(output, progress.history)

    def _tell_epoch(self, record: dict[str, Any]) -> None:
        left = (self._config.epochs - record["epoch"]) * self._epoch_seconds
        self._assignment.tell(
            f"epoch {record['epoch']:>3}/{self._config.epochs}  loss {record['loss']:.3f}  "
            f"mIoU {record['mean_iou']:.3f}  accuracy {record['accuracy']:.3f}  "
            f"{record['images_per_second']:.1f} images/s  {left / 60:.1f} min left"
        )

    def _report(self, record: dict[str, Any], progress: Progress) -> None:
        """Tell Ray Train that the epoch is done; rank 0 brings the checkpoint."""
        if self._rank != 0:
            ray.train.report(record, checkpoint=None)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), self.network.model, self.network.optimizer, progress)
            ray.train.report(record, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _write_model(self, progress: Progress) -> None:
        config = self._config
        # A network of its own, outside the strategy: exporting needs plain variables.
        best = build_unet(len(config.labels), config.image_size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "best.weights.h5")
            path.write_bytes(progress.best_weights)
            best.load_weights(path)
        self._assignment.tell("writing the model of the best epoch")
        write_bundle(
            join_uri(self._assignment.output, "model"),
            best,
            config.labels,
            {
                "configuration": config.to_json(),
                "data_fingerprint": self._assignment.data_fingerprint,
                "metrics": progress.history[progress.best_epoch - 1],
            },
        )


def _number(value: float) -> float | None:
    """A JSON number; null for what is undefined, such as the IoU of a class that is nowhere."""
    return round(value, 6) if np.isfinite(value) else None

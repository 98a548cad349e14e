"""The training loop, which is the same in each process of a run."""

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import ray
import tensorflow as tf

from segray.errors import InputError
from segray.model.bundle import write_bundle
from segray.model.unet import build_unet
from segray.pixels.metrics import class_iou, mean_true_iou, pixel_accuracy
from segray.progress import format_time
from segray.storage.uri import join_uri
from segray.training.config import TrainConfig
from segray.training.control.assignment import Assignment
from segray.training.control.checkpoint import Checkpoints, Progress
from segray.training.data.batches import Batch, Draw, draw_epoch, steps_per_epoch
from segray.training.data.crops import WindowedExamples, count_crops, place_crops
from segray.training.data.examples import (
    DecodedExamples,
    Request,
    StreamedExamples,
)
from segray.training.data.prefetch import Prefetched
from segray.training.outputs.records import write_events, write_preview, write_records
from segray.training.outputs.tracking import History
from segray.training.step.calibration import divide_logits, find_calibration
from segray.training.step.network import TrainableNetwork
from segray.training.step.schedule import rate_at
from segray.training.step.scoring import score_share

log = logging.getLogger(__name__)

_PREVIEWS = 4
_SECONDS_BETWEEN_STEP_REPORTS = 10.0

#: A context manager around a synchronisation point, at which workers wait for each other. It takes
#: the name of the point, for messages.
Barrier = Callable[[str], contextlib.AbstractContextManager[None]]


class TrainingLoop:
    """The training loop of one process.

    Args:
        assignment: the same for every worker.
        strategy: the distribution strategy of this process.
        rank: the rank of this worker, from 0; only rank 0 writes files.
        workers: the number of workers.
        track: called on rank 0 with the records of all epochs so far.
        barrier: wraps each synchronisation point, as
            `segray.training.control.watchdog.Watchdog.barrier` does; no watchdog by default.
        parts: the number of micro-batches, see `segray.training.step.network.TrainableNetwork`.
        may_grow: returns True if there is room for more workers; called on rank 0 at the end of
            each epoch.

    Attributes:
        network: the network in training; its weights are equal on all workers after every step.
    """

    def __init__(
        self,
        assignment: Assignment,
        strategy: tf.distribute.Strategy,
        rank: int,
        workers: int,
        track: Callable[[History], None],
        barrier: Barrier = lambda place: contextlib.nullcontext(),
        parts: int = 1,
        may_grow: Callable[[], bool] = lambda: False,
    ) -> None:
        config = assignment.config
        self._may_grow = may_grow
        self._assignment, self._config = assignment, config
        self._rank, self._workers = rank, workers
        self._track, self._barrier = track, barrier
        self._train = assignment.train.open(workers)
        validation = assignment.validation
        self._validation: DecodedExamples | StreamedExamples | WindowedExamples
        self._validation = validation.open(workers)
        # The example of each item of an epoch.
        self._items = np.arange(len(assignment.train))
        if config.fit == "tile":
            shape = config.frame.shape
            self._validation = WindowedExamples(self._validation, validation.sizes, shape)
            self._items = np.repeat(self._items, count_crops(assignment.train.sizes, shape))
        self._steps = steps_per_epoch(len(self._items), config.batch_size)
        self._checkpoints = Checkpoints(join_uri(assignment.output, "checkpoints"))
        weights = assignment.encoder_weights
        self._pretrained = weights is not None
        # The same seed on every worker, so that each builds the same network.
        keras.utils.set_random_seed(config.seed)
        content = None if weights is None else ray.get(weights)
        with barrier("the building of the network"):  # rank 0 broadcasts its weights
            self.network = TrainableNetwork(
                strategy, config, content, assignment.class_weights, parts=parts
            )
        if assignment.start is not None:
            ray.get(assignment.start).copy_to(self.network.model, config.labels.names)

    def run(self) -> str:
        """Train from the last finished epoch to the last one, then write the bundle.

        If more workers can join, it returns at the end of an epoch without a bundle, for all
        workers to be restarted.

        Returns:
            The reason why the run cannot continue, the same on all workers; empty if all is well.

        Raises:
            InputError: this worker alone cannot continue, for example because it cannot write a
                file.
        """
        progress = self._resume()
        config = self._config
        if self._assignment.start is not None and not progress.epoch:
            record = self._score(0)
            if self._rank == 0:
                log.info(f"before the first epoch: {_describe_scores(record)}")
        if self._rank == 0 and not progress.is_over(config.epochs, config.patience):
            log.info("compiling the network; the first step takes a while")
        while not progress.is_over(config.epochs, config.patience):
            record = self._run_epoch(progress.epoch + 1)
            problem = _find_problem(record, config)
            if problem:
                return problem
            progress.add(record)
            if self._rank == 0:
                self._checkpoints.save(self.network, progress)
                self._write_preview(progress.epoch)
                self._write_records(progress)
                self._log_epoch(record)
            if self._grows(progress):
                return ""
        if self._rank == 0:
            self._write_model(progress)
        return ""

    def _resume(self) -> Progress:
        # Rank 0 decides, so that all workers resume from the same epoch whatever each sees of the
        # store.
        newest = self._checkpoints.newest() if self._rank == 0 else 0
        with self._barrier("the start of the run"):
            epoch = self.network.sum_over_replicas(newest)
        if not epoch:
            return Progress()
        progress = self._checkpoints.load(epoch, self.network)
        if self._rank == 0:
            log.info(f"resuming after epoch {epoch}")
            self._find_best(progress)
        with self._barrier("the best epoch so far"):
            best = progress.best_epoch if self._rank == 0 else 0
            progress.best_epoch = self.network.sum_over_replicas(best)
        if self._rank == 0:
            # The run may have ended after it wrote the checkpoint and before it wrote these.
            self._write_preview(epoch)
            self._write_records(progress)
        return progress

    def _grows(self, progress: Progress) -> bool:
        """Return True if the run is to continue with more workers after this epoch."""
        config = self._config
        if self._workers >= config.most_workers or progress.is_over(config.epochs, config.patience):
            return False
        grows = self._rank == 0 and self._may_grow()
        with self._barrier(f"the end of epoch {progress.epoch}"):
            return bool(self.network.sum_over_replicas(int(grows)))

    def _run_epoch(self, epoch: int) -> dict[str, Any]:
        """Train and score for one epoch; return its record for metrics.jsonl."""
        started = time.monotonic()
        learned, rate = self._learn(epoch)
        scoring = time.monotonic()
        scores = self._score(epoch)
        # The duration of an epoch without the compilation that the first one includes.
        examples = self._steps * self._config.batch_size
        self._epoch_seconds = examples / rate + time.monotonic() - scoring
        seconds = round(time.monotonic() - started, 2)
        return {"epoch": epoch, **scores, **learned, "seconds": seconds}

    def _learn(self, epoch: int) -> tuple[dict[str, Any], float]:
        """Pass over the training set once.

        Returns:
            The training part of the epoch's record, and the throughput in images/s, not rounded (a
            slow run's would be rounded to 0).
        """
        config = self._config
        results: list[tf.Tensor] = []
        batches = Prefetched(self._batches(epoch))
        started = told = time.monotonic()
        waited = rate = 0.0
        for step, batch in enumerate(batches, start=1):
            place, rates = f"step {step} of epoch {epoch}", self._rates(epoch, step)
            # Compile outside the synchronisation point: compilation time is neither a stall nor
            # part of the throughput.
            compiling = time.monotonic()
            self.network.compile(fine=rates[1] > 0)
            started += time.monotonic() - compiling
            with self._barrier(place):
                results.append(self.network.train(batch, rates))
                if step in (1, self._steps):
                    results[-1].numpy()
            now = time.monotonic()
            if step == 1 and self._steps > 1:
                # The first step of a run compiles the graph, so the throughput is measured from its
                # end.
                started, waited = now, batches.waited
                continue
            rate = max(step - 1, 1) * config.batch_size / (now - started)
            if self._rank == 0 and now - told > _SECONDS_BETWEEN_STEP_REPORTS:
                told = now
                with self._barrier(place):
                    loss = _mean(results)
                log.info(
                    f"epoch {epoch:>3}/{config.epochs}  step {step}/{self._steps}  "
                    f"training loss {loss:.3f}  {rate:.1f} images/s"
                )
        waiting = (batches.waited - waited) / max(time.monotonic() - started, 1e-9)
        record = {
            "train_loss": _number(_mean(results)),
            "images_per_second": round(rate, 2),
            "waiting": round(waiting, 4),
        }
        return record, rate

    def _batches(self, epoch: int) -> Iterator[Batch]:
        config = self._config
        draws = draw_epoch(
            len(self._items),
            config.batch_size,
            config.seed,
            epoch,
            self._rank,
            self._workers,
            config.augmentation,
            config.frame.shape,
            config.frame.shape if config.fit == "tile" else config.training_frame.shape,
            config.margins,
        )
        draws, again = itertools.tee(draws)
        arrays = self._train.read(self._request(draw) for draw in draws)
        for draw, (images, masks) in zip(again, arrays, strict=True):
            changes = (draw.warps, draw.colours, draw.degradations, draw.seeds)
            yield self.network.place(Batch(images, masks, *changes))

    def _request(self, draw: Draw) -> Request:
        """Return what has to be read for a step."""
        config, examples = self._config, self._items[draw.indices]
        if config.fit != "tile":
            return examples
        return place_crops(
            examples,
            self._assignment.train.sizes[examples],
            draw.places,
            draw.warps,
            config.frame.shape,
            config.training_frame.shape,
            config.foreground_share,
        )

    def _rates(self, epoch: int, step: int) -> tuple[float, float]:
        """Return the learning rates of the decoder and the encoder at a step."""
        config = self._config
        now, total = (epoch - 1) * self._steps + step - 1, config.epochs * self._steps
        frozen = config.frozen_epochs * self._steps if self._pretrained else 0
        if config.from_model is not None:
            frozen = 0
        peak = config.encoder_learning_rate if self._pretrained else config.learning_rate
        decoder = rate_at(now, 0, total, config.warmup, config.schedule)
        encoder = 0.0
        if now >= frozen:
            encoder = rate_at(now, frozen, total, config.warmup, config.schedule)
        return config.learning_rate * decoder, peak * encoder

    def _score(self, epoch: int) -> dict[str, Any]:
        """Compute the metrics of the validation set; each image counts exactly once."""
        names = self._config.labels.names
        confusion, loss = score_share(self.network, self._validation, self._rank, self._workers)
        with self._barrier(f"the scores of epoch {epoch}"):
            confusion, loss = self.network.sum_scores(confusion, loss)
        ious = class_iou(confusion)
        return {
            "loss": _number(loss / int(confusion.sum())),
            "accuracy": _number(pixel_accuracy(confusion)),
            # Of the same classes in all epochs, because they are compared by it.
            "mean_iou": _number(mean_true_iou(confusion)),
            **{f"iou_{name}": _number(value) for name, value in zip(names, ious, strict=True)},
        }

    def _write_preview(self, epoch: int) -> None:
        count = min(_PREVIEWS, len(self._validation))
        # Spread over the set, because neighbours may be windows of one image.
        some = np.arange(count) * len(self._validation) // count
        [(images, masks)] = self._validation.read([some])
        predicted, _ = self.network.score(images, masks)
        labels = self._config.labels
        write_preview(self._assignment.output, epoch, images, masks, predicted, labels)

    def _write_records(self, progress: Progress) -> None:
        write_records(self._assignment.output, progress.history, self._config.labels)
        write_events(self._assignment.output, progress.history[-1])
        self._track(progress.history)

    def _log_epoch(self, record: dict[str, Any]) -> None:
        left = (self._config.epochs - record["epoch"]) * self._epoch_seconds
        log.info(
            f"epoch {record['epoch']:>3}/{self._config.epochs}  {_describe_scores(record)}  "
            f"{record['images_per_second']:.1f} images/s  {format_time(left)} left"
        )

    def _find_best(self, progress: Progress) -> None:
        """Choose the best epoch among those with an intact checkpoint."""
        best, lost = self._checkpoints.best(progress), progress.best_epoch
        if not best:
            raise InputError("no checkpoint of this run can be read any more: run again")
        if best != lost:
            progress.best_epoch = best
            log.info(
                f"the checkpoint of the best epoch, {lost}, is damaged or gone: the best of those "
                f"that are left is epoch {best}, with mIoU {progress.score(best):.3f} instead of "
                f"{progress.score(lost):.3f}"
            )

    def _write_model(self, progress: Progress) -> None:
        config = self._config
        self._find_best(progress)
        # Build another network outside the strategy, because exporting needs plain variables.
        policy = keras.config.dtype_policy()
        # The bundle is float32 whatever the training precision: each engine chooses its own.
        keras.config.set_dtype_policy("float32")
        try:
            best = build_unet(config.architecture)
        finally:
            keras.config.set_dtype_policy(policy)
        self._checkpoints.load_model(progress.best_epoch, best)
        log.info(f"writing the model of the best epoch, {progress.best_epoch}")
        metrics = progress.history[progress.best_epoch - 1]
        record = {**self._assignment.record, "metrics": metrics}
        if config.calibrate:
            # Nothing else uses this network any more; the checkpoint is read once.
            for own, loaded in zip(self.network.model.variables, best.variables, strict=True):
                own.assign(loaded.numpy())
            found = find_calibration(self.network.predict, self._validation, config)
            divide_logits(best, found.temperature)
            record |= vars(found)
        uri = join_uri(self._assignment.output, "model")
        value_range = self._assignment.train.reading.value_range
        write_bundle(
            uri, best, config.architecture, config.labels, record, config.frame, value_range
        )


def _find_problem(record: dict[str, Any], config: TrainConfig) -> str:
    if record["train_loss"] is None or record["loss"] is None:
        return (
            f"the loss is no number any more in epoch {record['epoch']}: lower --learning-rate "
            f"{config.learning_rate:g}, and give another --output"
        )
    return ""


def _describe_scores(record: dict[str, Any]) -> str:
    loss, iou, accuracy = (
        math.nan if record[name] is None else record[name]
        for name in ("loss", "mean_iou", "accuracy")
    )
    return f"loss {loss:.3f}  mIoU {iou:.3f}  accuracy {accuracy:.3f}"


def _mean(results: list[tf.Tensor]) -> float:
    totals = np.array([result.numpy() for result in results], dtype=np.float64).sum(axis=0)
    return float(totals[0] / max(totals[1], 1))


def _number(value: float) -> float | None:
    """Return a JSON number, or None for an undefined value, such as the IoU of an absent class."""
    return round(value, 6) if np.isfinite(value) else None

"""An evaluation run: from labelled images to figures, with what came of each image."""

import heapq
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from segray.errors import InputError
from segray.evaluation.pictures import Worst
from segray.evaluation.prepare import Preparation
from segray.evaluation.scores import Scores
from segray.evaluation.stages import MODEL, OWN, PAIRS_SCHEMA, Predict, count, figures_schema, read
from segray.evaluation.write import Evaluation, write_evaluation
from segray.model.bundle import Bundle, open_bundle
from segray.model.predictor import Engine, choose_engine, engine_file
from segray.pixels.labels import Labels
from segray.progress import ProgressLine
from segray.storage.lock import hold_lock
from segray.storage.pairs import Pair
from segray.storage.skipped import Skipped
from segray.storage.uri import absolute_uri

# Shares of a CPU, chosen as in a segmentation: below one, so that predictors leave room for the
# tasks around them on any machine, and different ones, so that Ray does not fuse the stages.
_TASK_CPUS = 0.25
_PREDICTOR_CPUS = 0.5
# What bounds the logits of a block, which a task holds at once.
_BLOCK_LOGITS_BYTES = 1 << 27
_WORST_IMAGES = 12


def evaluate(preparation: Preparation, tell: Callable[[str], None]) -> Evaluation:
    """Do what the flags say; Ray has been started.

    Args:
        preparation: of `segray.evaluation.prepare.prepare_evaluation`.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: see `evaluate_pairs`; or another run is at work on the output.
    """
    config, pairing = preparation.config, preparation.pairing
    with hold_lock(preparation.output, tell):
        return evaluate_pairs(
            preparation.bundle,
            pairing.pairs,
            preparation.output,
            tell,
            engine=config.engine,
            workers=config.workers,
            use_gpu=config.use_gpu,
            batch_size=config.batch_size,
            skipped=pairing.skipped,
            configuration=config.to_json(),
        )


def evaluate_pairs(
    model: str | Bundle,
    pairs: Sequence[Pair],
    output: str,
    tell: Callable[[str], None],
    *,
    engine: Engine = "auto",
    workers: int | None = None,
    use_gpu: bool = False,
    batch_size: int = 32,
    skipped: Sequence[Skipped] = (),
    configuration: dict[str, Any] | None = None,
) -> Evaluation:
    """Score a model on labelled pairs, and write the output folder; Ray has been started.

    The counts, and so all figures of the whole, are the same whatever the number of workers: they
    are integers, and an image is always predicted in a batch with the same others. The driver
    holds the figures of every image, 40 bytes for each class and image.

    Args:
        model: a bundle, or the URI of one.
        pairs: what to score the model on.
        output: the URI of the folder that receives the files of docs/outputs.md.
        tell: is called with lines for the user's terminal.
        engine: what runs the network.
        workers: how many predictors run at once; None for one on each CPU or GPU.
        use_gpu: give each predictor a GPU.
        batch_size: images that a predictor takes at a time.
        skipped: pairs that were left out before, to be written and counted with those that cannot
            be read.
        configuration: what to keep in metrics.json, JSON-ready; default: these arguments.

    Raises:
        InputError: the model cannot be used, there are no pairs, or the output cannot be written.
            A pair that cannot be read raises nothing: it is in ``skipped.jsonl``.
    """
    if not pairs:
        raise InputError("there is no labelled pair to score the model on")
    started = time.monotonic()
    chosen = choose_engine(engine, use_gpu)
    if isinstance(model, str) or engine_file(chosen) not in model.files:
        uri = model if isinstance(model, str) else model.uri
        model = open_bundle(uri, [engine_file(chosen)])
    tell(f"scoring {len(pairs)} pairs with {chosen}")
    gathered = _Gathered(model.labels)
    progress = ProgressLine("scoring", "pairs", len(pairs), tell)
    # Ray Data gives a job up after half an hour without a block; nodes may take longer.
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = -1
    counted = _pipeline(model, chosen, pairs, workers, use_gpu, batch_size)
    for table in counted.iter_batches(batch_size=None, batch_format="pyarrow"):
        gathered.add(table)
        progress.add(len(table), len(table) - table["reason"].null_count)
    unread = [
        Skipped(pairs[index].image, pairs[index].mask, reason)
        for index, reason in sorted(gathered.reasons)
    ]
    evaluation = Evaluation(
        output=absolute_uri(output),
        model=model,
        engine=chosen,
        images=len(pairs) + len(skipped),
        evaluated=len(pairs) - len(unread),
        skipped=[*skipped, *unread],
        own_size=gathered.own,
        model_size=gathered.model,
        loss=gathered.loss,
        seconds=time.monotonic() - started,
    )
    arguments = {
        "engine": engine,
        "workers": workers,
        "use_gpu": use_gpu,
        "batch_size": batch_size,
    }
    write_evaluation(
        evaluation, gathered.figures, gathered.worst(pairs), configuration or arguments
    )
    return evaluation


def _pipeline(
    bundle: Bundle,
    engine: Literal["tensorflow", "onnx"],
    pairs: Sequence[Pair],
    workers: int | None,
    use_gpu: bool,
    batch_size: int,
) -> ray.data.Dataset:
    """The whole of it: pairs in, figures and counts of each image out."""
    labels, image_size = bundle.labels, bundle.image_size
    blocks = _as_tables(pairs, _block_rows(bundle, batch_size))
    predictors, pool = _predictors(workers, use_gpu, len(blocks))
    # A batch is a block from the first stage to the last: were batches made up as blocks come in,
    # the last digits of the logits, and so a few pixels, would hang on the number of workers.
    whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
    return (
        ray.data.from_arrow(blocks)
        .map_batches(read, fn_args=(labels, image_size), num_cpus=_TASK_CPUS, **whole)
        .map_batches(
            Predict,
            fn_constructor_args=(bundle, engine, 0 if use_gpu else 1),
            compute=pool,
            num_cpus=_predictor_cpus(predictors),
            num_gpus=1 if use_gpu else 0,
            **whole,
        )
        .map_batches(count, fn_args=(labels, image_size), num_cpus=_TASK_CPUS, **whole)
    )


def _block_rows(bundle: Bundle, batch_size: int) -> int:
    logits_bytes = 4 * len(bundle.labels) * bundle.image_size**2
    return min(batch_size, max(1, _BLOCK_LOGITS_BYTES // logits_bytes))


def _as_tables(pairs: Sequence[Pair], rows: int) -> list[pa.Table]:
    numbered = [
        {"number": i, "key": pair.key, "image": pair.image, "mask": pair.mask}
        for i, pair in enumerate(pairs)
    ]
    return [
        pa.Table.from_pylist(numbered[start : start + rows], PAIRS_SCHEMA)
        for start in range(0, len(numbered), rows)
    ]


def _predictors(
    workers: int | None, use_gpu: bool, blocks: int
) -> tuple[int, ray.data.ActorPoolStrategy]:
    """How many predictors to start with, and their pool."""
    now = workers or int(ray.cluster_resources().get("GPU" if use_gpu else "CPU", 0))
    if not now:
        # A cluster that starts its nodes when they are asked for: ask until it has no more.
        return 1, ray.data.ActorPoolStrategy(min_size=1, max_size=blocks)
    # Never more predictors than blocks: Ray would keep the idle ones waiting.
    started = min(now, blocks)
    return started, ray.data.ActorPoolStrategy(size=started)


def _predictor_cpus(predictors: int) -> float:
    """What a predictor asks for: with all of them, half of the CPUs stay free for the tasks."""
    share = min(_PREDICTOR_CPUS, ray.cluster_resources().get("CPU", math.inf) / 2 / predictors)
    return math.floor(share * 10_000) / 10_000


class _Gathered:
    """What has come out of the pipeline, in whatever order.

    Attributes:
        reasons: number and reason of each pair that could not be read.
        own: counts at the images' own sizes.
        model: counts at the model's size.
    """

    def __init__(self, labels: Labels) -> None:
        self._schema = figures_schema(labels)
        self._tables: list[pa.Table] = []
        self._worst: list[dict[str, Any]] = []
        self.reasons: list[tuple[int, str]] = []
        self.own = self.model = Scores.zero(len(labels))

    def add(self, counted: pa.Table) -> None:
        """Take in a table that `segray.evaluation.stages.count` made."""
        failed = counted.filter(pc.is_valid(counted["reason"]))
        self.reasons += zip(failed["number"].to_pylist(), failed["reason"].to_pylist(), strict=True)
        good = counted.filter(pc.is_null(counted["reason"]))
        if not len(good):
            return
        self.own += Scores.from_columns(good, OWN, self.own.classes)
        self.model += Scores.from_columns(good, MODEL, self.own.classes)
        self._tables.append(good.select(["number", "summed_loss", *self._schema.names]))
        ranked = good.filter(pc.is_valid(good["mean_iou"]))
        ranked = ranked.select(["number", "prediction", *self._schema.names])
        self._worst = heapq.nsmallest(
            _WORST_IMAGES,
            self._worst + ranked.to_pylist(),
            key=lambda row: (row["mean_iou"], row["number"]),
        )

    @property
    def figures(self) -> pa.Table:
        """A row for each image, in the order of the pairs."""
        if not self._tables:
            return self._schema.empty_table()
        return pa.concat_tables(self._tables).sort_by("number").select(self._schema.names)

    @property
    def loss(self) -> float | None:
        """The mean cross-entropy over all labelled pixels at the model's size."""
        sums = [table["summed_loss"].to_pylist() for table in self._tables]
        # fsum rounds once, in the end: the order of the images makes no difference.
        total = math.fsum(value for values in sums for value in values)
        return total / self.model.pixels if self.model.pixels else None

    def worst(self, pairs: Sequence[Pair]) -> list[Worst]:
        """The images with the lowest mean IoU, the lowest first."""
        return [Worst(pairs[row["number"]], row) for row in self._worst]

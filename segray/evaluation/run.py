"""An evaluation run: from labelled images to metrics, with a result for each image."""

import contextlib
import heapq
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import ray

from segray.data.labelled import Reading
from segray.data.pairs import Pair
from segray.data.skipped import Skipped
from segray.data.values import check_values
from segray.errors import InputError
from segray.evaluation.expected import rank_correlation
from segray.evaluation.pictures import Worst
from segray.evaluation.pipeline import PREDICTOR_CPUS, Pipeline
from segray.evaluation.plan import Preparation
from segray.evaluation.scores import Scores
from segray.evaluation.stages import MODEL, OVERLAP_FIELDS, OWN, figures_schema
from segray.evaluation.write import Evaluation, write_evaluation
from segray.model.bundle import Bundle, open_bundle
from segray.model.predictor import Engine, choose_engine, engine_file, load_gpu_predictor
from segray.nodes import SharedFiles, await_node, reporting_waits
from segray.pixels.canvas import OVERLAP
from segray.pixels.expected import ExpectedOverlap
from segray.pixels.labels import Labels
from segray.pixels.orientation import MaskOrientation, Says, settle_orientation
from segray.pixels.wide import ValueRange
from segray.progress import ProgressLine
from segray.storage.lock import LOCK, hold_lock
from segray.storage.uri import absolute_uri, join_uri

log = logging.getLogger(__name__)

_WORST_IMAGES = 12
_NO_FILES = SharedFiles()
_OVERLAP = [field.name for field in OVERLAP_FIELDS]


def evaluate(preparation: Preparation, on_ray: bool = True) -> Evaluation:
    """Run the evaluation that the flags ask for.

    Args:
        preparation: the result of `segray.evaluation.plan.prepare_evaluation`.
        on_ray: True if Ray, which has been started, does the work; else this process does.

    Raises:
        InputError: see `evaluate_pairs`; or another run is using the output.
    """
    config, pairing = preparation.config, preparation.pairing
    value_range = config.value_range or preparation.bundle.value_range
    with hold_lock(preparation.output, config.lock) as check_lock:
        # Only here: a training run, which ends with a score, has already checked its images.
        check_values([pair.image for pair in pairing.pairs], value_range)
        return evaluate_pairs(
            preparation.bundle,
            pairing.pairs,
            preparation.output,
            engine=config.engine,
            workers=config.workers if on_ray else 0,
            use_gpu=config.use_gpu,
            batch_size=config.batch_size,
            overlap=config.overlap,
            test_time_flip=config.test_time_flip,
            mask_orientation=config.mask_orientation,
            value_range=config.value_range,
            skipped=pairing.skipped,
            shared=SharedFiles.of(
                {
                    "--images" if config.pairs is None else "--pairs": pairing.pairs[0].image,
                    "--masks": pairing.pairs[0].mask,
                    "--output": join_uri(preparation.output, LOCK),
                }
            ),
            configuration=config.to_json(),
            check_lock=check_lock,
        )


def evaluate_pairs(
    model: str | Bundle,
    pairs: Sequence[Pair],
    output: str,
    *,
    engine: Engine = "auto",
    workers: int | None = None,
    use_gpu: bool = False,
    batch_size: int = 32,
    overlap: float = OVERLAP,
    test_time_flip: bool = False,
    mask_orientation: MaskOrientation = "auto",
    value_range: ValueRange | None = None,
    skipped: Sequence[Skipped] = (),
    shared: SharedFiles = _NO_FILES,
    configuration: dict[str, Any] | None = None,
    scored: Callable[[Bundle, pa.Table], None] | None = None,
    check_lock: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score a model on labelled pairs, and write the output folder.

    The counts, and therefore all metrics over all images, are the same for any number of workers:
    they are integers, and an image is always predicted in a batch with the same other images. The
    driver holds the metrics of every image, 80 bytes per class and image.

    Args:
        model: a bundle, or the URI of one.
        pairs: the pairs to score the model on.
        output: the URI of the folder for the files described in docs/outputs/evaluation.md.
        engine: the inference engine.
        workers: the number of concurrent predictors on Ray, which must have been started; None for
            one per CPU or GPU; 0 to score in this process, without Ray.
        use_gpu: True to give each predictor a GPU.
        batch_size: images, or windows of images, per batch of a predictor.
        overlap: see `segray.pixels.canvas.Canvas`.
        test_time_flip: True to average with the prediction for the mirror image.
        mask_orientation: how masks of images with an EXIF orientation were drawn.
        value_range: the pixel values of black and white in images of more than 8 bits per channel;
            default: the model's.
        skipped: files that were skipped before; they are recorded and counted with the unreadable
            ones.
        shared: local files that must be visible on the nodes.
        configuration: the settings to record in metrics.json, JSON-ready; default: these arguments.
        scored: called with the model and the rows of ``per_image.parquet`` before anything is
            written, if all pairs could be read.
        check_lock: called right before the files are written; what
            `segray.storage.lock.hold_lock` yields.

    Raises:
        InputError: the model cannot be used, there are no pairs, the output cannot be written, the
            engine finds no GPU although it is to use one, local files are not visible on a node, or
            the orientation of the masks cannot be inferred. A pair that cannot be read raises no
            error: it is listed in ``skipped.jsonl``.
    """
    if not pairs:
        raise InputError("there is no labelled pair to score the model on")
    started = time.monotonic()
    chosen = choose_engine(engine)
    if isinstance(model, str) or engine_file(chosen) not in model.files:
        uri = model if isinstance(model, str) else model.uri
        model = open_bundle(uri, [engine_file(chosen)])
    log.info(f"scoring {len(pairs)} pairs with {chosen}")
    on_ray = workers != 0
    if on_ray:
        await_node("GPU" if use_gpu else "CPU", "a predictor")
        shared.check_nodes()
        if use_gpu:
            _check_gpu(model, chosen)
    pipeline = Pipeline(model, chosen, pairs, use_gpu, batch_size, overlap, test_time_flip)

    def score(reading: Reading) -> _Gathered:
        gathered = _Gathered(model.labels)
        progress = ProgressLine("scoring", "pairs", len(pairs))
        waits: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if on_ray:
            asked = {"GPU": 1.0} if use_gpu else {"CPU": PREDICTOR_CPUS}
            waits = reporting_waits("a predictor", asked, lambda: not progress.done)
        with waits:
            tables = pipeline.run_on_ray(reading, workers) if on_ray else pipeline.run_here(reading)
            for table in tables:
                gathered.add(table)
                progress.add(len(table), len(table) - table["reason"].null_count)
        return gathered

    reading = Reading(mask_orientation, value_range or model.value_range)
    gathered = score(reading)
    if mask_orientation == "auto":
        settled = settle_orientation(gathered.says.elements())
        reading = replace(reading, mask_orientation=settled)
        if settled == "upright":
            log.info("masks were drawn on upright images, as their shapes show: scoring again")
            gathered = score(reading)
    if gathered.turned:
        log.info(
            f"turned {gathered.turned} mask(s) with their photographs, by their EXIF orientation"
        )
    if model.labels.others_ignored:
        log.info(f"{gathered.ignored:.1%} of the pixels are ignored")
    if gathered.reasons and on_ray:
        # Nodes that joined in the meantime may not see the files, and have reported them as
        # unreadable.
        shared.check_nodes()
    unread = [
        Skipped(pairs[index].image, pairs[index].mask, reason)
        for index, reason in sorted(gathered.reasons)
    ]
    figures = gathered.figures
    evaluation = Evaluation(
        output=absolute_uri(output),
        model=model,
        engine=chosen,
        images=len(pairs) + len(skipped),
        evaluated=len(pairs) - len(unread),
        skipped=[*skipped, *unread],
        original_resolution=gathered.own,
        model_resolution=gathered.model,
        loss=gathered.loss,
        expected=gathered.expected,
        rank_correlation=rank_correlation(figures),
        seconds=time.monotonic() - started,
        reading=reading,
    )
    arguments = {
        "engine": engine,
        "workers": workers,
        "use_gpu": use_gpu,
        "batch_size": batch_size,
        "overlap": overlap,
        "test_time_flip": test_time_flip,
        "mask_orientation": mask_orientation,
        "value_range": value_range,
    }
    if scored and not unread:
        scored(model, figures)
    check_lock()
    write_evaluation(evaluation, figures, gathered.worst(pairs), configuration or arguments)
    return evaluation


def _check_gpu(bundle: Bundle, engine: Literal["tensorflow", "onnx"]) -> None:
    """Refuse a GPU that the engine does not see; inside a predictor the reason would be lost."""
    with reporting_waits("a predictor", {"GPU": 1.0}, lambda: True):
        if problem := ray.get(_find_gpu_problem.remote(bundle, engine)):
            raise InputError(problem)


@ray.remote(num_cpus=0, num_gpus=1)
def _find_gpu_problem(bundle: Bundle, engine: Literal["tensorflow", "onnx"]) -> str:
    try:
        load_gpu_predictor(bundle, engine, 1)
    except InputError as error:
        return str(error)
    return ""


class _Gathered:
    """The collected results of the pipeline, which arrive in any order.

    Attributes:
        reasons: the number of each pair that could not be read, with the reason.
        says: the number of other pairs by their evidence on the orientation of masks.
        turned: the number of masks that were rotated with their images.
        own: counts at the original resolution of each image.
        model: counts at the network's resolution.
    """

    def __init__(self, labels: Labels) -> None:
        self._schema = figures_schema(labels)
        self._tables: list[pa.Table] = []
        self._worst: list[dict[str, Any]] = []
        self.reasons: list[tuple[int, str]] = []
        self.says: Counter[Says] = Counter()
        self.turned = 0
        self.own = self.model = Scores.zero(len(labels))

    def add(self, counted: pa.Table) -> None:
        """Add a table that `segray.evaluation.stages.count` made."""
        failed = counted.filter(pc.is_valid(counted["reason"]))
        self.reasons += zip(failed["number"].to_pylist(), failed["reason"].to_pylist(), strict=True)
        good = counted.filter(pc.is_null(counted["reason"]))
        if not len(good):
            return
        self.says.update(good["says"].to_pylist())
        self.turned += pc.sum(good["turned"]).as_py()
        self.own += Scores.from_columns(good, OWN, self.own.classes)
        self.model += Scores.from_columns(good, MODEL, self.own.classes)
        self._tables.append(good.select(["number", "summed_loss", *self._schema.names, *_OVERLAP]))
        ranked = good.filter(pc.is_valid(good["mean_iou"]))
        ranked = ranked.select(["number", "prediction", *self._schema.names])
        self._worst = heapq.nsmallest(
            _WORST_IMAGES,
            self._worst + ranked.to_pylist(),
            key=lambda row: (row["mean_iou"], row["number"]),
        )

    @property
    def figures(self) -> pa.Table:
        """A row of metrics for each image, in the order of the pairs."""
        if not self._tables:
            return self._schema.empty_table()
        return pa.concat_tables(self._tables).sort_by("number").select(self._schema.names)

    @property
    def expected(self) -> ExpectedOverlap:
        """The expected overlap in all images, summed in the order of the pairs."""
        classes = self.own.classes
        if not self._tables:
            return ExpectedOverlap.zero(classes)
        table = pa.concat_tables(self._tables).sort_by("number")
        arrays = (pc.list_flatten(table[name]).to_numpy() for name in _OVERLAP)
        return ExpectedOverlap(*(array.reshape(-1, classes) for array in arrays)).sum()

    @property
    def ignored(self) -> float:
        """The share of unlabelled pixels at the original resolution of the images, 0 to 1."""
        total = sum(
            pc.sum(pc.multiply(table["width"].cast("int64"), table["height"])).as_py()
            for table in self._tables
        )
        return 1 - self.own.pixels / max(1, total)

    @property
    def loss(self) -> float | None:
        """The mean cross-entropy over all labelled pixels at the network's resolution."""
        sums = [table["summed_loss"].to_pylist() for table in self._tables]
        # fsum rounds only once, at the end, so the order of the images makes no difference.
        total = math.fsum(value for values in sums for value in values)
        return total / self.model.pixels if self.model.pixels else None

    def worst(self, pairs: Sequence[Pair]) -> list[Worst]:
        """Return the images with the lowest mean IoU, in ascending order."""
        return [Worst(pairs[row["number"]], row) for row in self._worst]

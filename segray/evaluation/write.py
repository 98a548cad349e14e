"""Writing: the files of an evaluation."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segray.data.labelled import Reading
from segray.data.skipped import Skipped, write_skipped
from segray.evaluation.expected import draw_expected
from segray.evaluation.pictures import Worst, draw_confusion, draw_worst
from segray.evaluation.scores import Scores, number
from segray.model.architecture import join_size
from segray.model.bundle import Bundle
from segray.packages import package_versions
from segray.pixels.expected import ExpectedOverlap
from segray.storage.files import child_names, remove, write_bytes
from segray.storage.tables import write_table
from segray.storage.uri import join_uri

METRICS = "metrics.json"
PER_IMAGE = "per_image.parquet"
CONFUSION = "confusion.png"
EXPECTED = "expected.png"
WORST = "worst.png"
SKIPPED = "skipped.jsonl"
#: All files that an evaluation writes.
NAMES = (METRICS, PER_IMAGE, CONFUSION, EXPECTED, WORST, SKIPPED)

_PACKAGES = ("ray", "onnxruntime", "tensorflow", "pillow", "pyarrow", "numpy")


@dataclass(frozen=True)
class Evaluation:
    """The result of scoring a model on labelled images.

    Attributes:
        output: the absolute URI of the folder that it was written to.
        model: the model that was scored.
        engine: the inference engine.
        images: the number of pairs, including those that were skipped.
        evaluated: the number of pairs that were scored.
        skipped: the other pairs, each with a reason.
        original_resolution: counts at the resolution of each image, to which the prediction is
            scaled as in jobs/segment.py.
        model_resolution: counts at the network's resolution, to which the ground truth is scaled as
            in jobs/train.py.
        loss: the mean cross-entropy in nats over the labelled pixels at the network's resolution;
            None if there are none.
        expected: the expected overlap in all images, at the resolution of each.
        rank_correlation: that of the expected and the true mean IoU of images, -1 to 1; None where
            it is undefined.
        seconds: the duration of the evaluation, without writing the files.
        reading: the settings with which the files of the pairs were read.
    """

    output: str
    model: Bundle
    engine: str
    images: int
    evaluated: int
    skipped: Sequence[Skipped]
    original_resolution: Scores
    model_resolution: Scores
    loss: float | None
    expected: ExpectedOverlap
    rank_correlation: float | None
    seconds: float
    reading: Reading

    @property
    def expected_iou(self) -> list[float | None]:
        """The expected IoU of each class, [C]; None for a class that is not there."""
        return [number(iou) for iou in self.expected.class_iou(self.model.iou_exponent)]

    @property
    def expected_mean_iou(self) -> float | None:
        """The mean of `expected_iou`; None if no class is there."""
        return number(self.expected.mean_iou(self.model.iou_exponent))


def write_evaluation(
    evaluation: Evaluation,
    figures: pa.Table,
    worst: Sequence[Worst],
    configuration: dict[str, Any],
) -> None:
    """Write all files of an evaluation, ``metrics.json`` last.

    Args:
        evaluation: the result.
        figures: the rows of ``per_image.parquet``.
        worst: the images for ``worst.png``; without any, the file is not written.
        configuration: the settings to record, JSON-ready.

    Raises:
        InputError: a file cannot be written.
    """
    output, model = evaluation.output, evaluation.model
    # Files of an earlier evaluation must not be taken for a part of this one. metrics.json is
    # removed first, because it marks an evaluation as complete.
    left = child_names(output)
    for name in (name for name in NAMES if name in left):
        remove(join_uri(output, name))
    write_table(join_uri(output, PER_IMAGE), figures)
    confusion = draw_confusion(evaluation.original_resolution.confusion, model.labels)
    write_bytes(join_uri(output, CONFUSION), confusion)
    expected = draw_expected(
        *(figures, evaluation.expected, model.iou_exponent),
        *(evaluation.original_resolution, model.labels),
    )
    write_bytes(join_uri(output, EXPECTED), expected)
    sheet = draw_worst(worst, model, evaluation.reading)
    if sheet is not None:
        write_bytes(join_uri(output, WORST), sheet)
    write_skipped(join_uri(output, SKIPPED), evaluation.skipped)
    text = json.dumps(_record(evaluation, configuration), indent=2, allow_nan=False)
    # Put each row of a confusion matrix on one line. (Strings in JSON contain no line breaks.)
    text = re.sub(r"\[\n[\d,\s]*\]", lambda row: f"[{' '.join(row[0][1:-1].split())}]", text)
    write_bytes(join_uri(output, METRICS), text.encode())


def _record(evaluation: Evaluation, configuration: dict[str, Any]) -> dict[str, Any]:
    labels = evaluation.model.labels
    return {
        "model": {"uri": evaluation.model.uri, "digest": evaluation.model.digest},
        "engine": evaluation.engine,
        "labels": labels.to_json(),
        "reading": evaluation.reading.to_json(),
        "counts": {
            "images": evaluation.images,
            "evaluated": evaluation.evaluated,
            "skipped": len(evaluation.skipped),
        },
        "original_resolution": evaluation.original_resolution.to_json(labels),
        "model_resolution": {
            "image_size": join_size(*evaluation.model.frame.shape),
            "loss": evaluation.loss,
            **evaluation.model_resolution.to_json(labels),
        },
        "expected": {
            "mean_iou": evaluation.expected_mean_iou,
            "rank_correlation": evaluation.rank_correlation,
            "exponent": evaluation.model.iou_exponent,
            "iou": dict(zip(labels.names, evaluation.expected_iou, strict=True)),
        },
        "configuration": configuration,
        "seconds": round(evaluation.seconds, 3),
        "versions": package_versions(*_PACKAGES),
    }

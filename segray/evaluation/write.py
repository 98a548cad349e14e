"""Writing: the files of an evaluation."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segray.evaluation.pictures import Worst, draw_confusion, draw_worst
from segray.evaluation.scores import Scores
from segray.model.bundle import Bundle
from segray.packages import package_versions
from segray.storage.files import child_names, remove, write_bytes
from segray.storage.labelled import Reading
from segray.storage.skipped import Skipped, write_skipped
from segray.storage.tables import write_table
from segray.storage.uri import join_uri

METRICS = "metrics.json"
PER_IMAGE = "per_image.parquet"
CONFUSION = "confusion.png"
WORST = "worst.png"
SKIPPED = "skipped.jsonl"
#: All that an evaluation writes.
NAMES = (METRICS, PER_IMAGE, CONFUSION, WORST, SKIPPED)

_PACKAGES = ("ray", "onnxruntime", "tensorflow", "pillow", "pyarrow", "numpy")


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on labelled images.

    Attributes:
        output: the absolute URI of the folder that it was written to.
        model: what was scored.
        engine: what ran the network.
        images: how many pairs there were, those that were skipped among them.
        evaluated: how many of them were scored.
        skipped: the others, each with a reason.
        own_size: counts at each image's own size, the prediction brought there as jobs/segment.py
            does.
        model_size: counts at the model's size, the truth brought there as jobs/train.py does.
        loss: mean cross-entropy in nats over the labelled pixels at the model's size; None where
            there are none.
        seconds: that it took, the writing excluded.
        reading: how the files of the pairs were read.
    """

    output: str
    model: Bundle
    engine: str
    images: int
    evaluated: int
    skipped: Sequence[Skipped]
    own_size: Scores
    model_size: Scores
    loss: float | None
    seconds: float
    reading: Reading


def write_evaluation(
    evaluation: Evaluation,
    figures: pa.Table,
    worst: Sequence[Worst],
    configuration: dict[str, Any],
) -> None:
    """Write all files of an evaluation, ``metrics.json`` last.

    Args:
        evaluation: the whole.
        figures: the rows of ``per_image.parquet``.
        worst: the images for ``worst.png``; without any there is no such file.
        configuration: JSON-ready.

    Raises:
        InputError: a file cannot be written.
    """
    output, model = evaluation.output, evaluation.model
    # What an earlier evaluation left there must not be taken for a part of this one.
    # The figures first, which say that an evaluation is whole.
    left = child_names(output)
    for name in (name for name in NAMES if name in left):
        remove(join_uri(output, name))
    write_table(join_uri(output, PER_IMAGE), figures)
    confusion = draw_confusion(evaluation.own_size.confusion, model.labels)
    write_bytes(join_uri(output, CONFUSION), confusion)
    sheet = draw_worst(worst, model, evaluation.reading)
    if sheet is not None:
        write_bytes(join_uri(output, WORST), sheet)
    write_skipped(join_uri(output, SKIPPED), evaluation.skipped)
    text = json.dumps(_record(evaluation, configuration), indent=2, allow_nan=False)
    # A row of a confusion matrix is a line. No string in JSON holds a line break.
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
        "own_size": evaluation.own_size.to_json(labels),
        "model_size": {
            "image_size": evaluation.model.image_size,
            "loss": evaluation.loss,
            **evaluation.model_size.to_json(labels),
        },
        "configuration": configuration,
        "seconds": round(evaluation.seconds, 3),
        "versions": package_versions(*_PACKAGES),
    }

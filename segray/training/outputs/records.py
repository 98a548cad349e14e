"""Records: the files for a person to read during and after a run."""

import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboardX import SummaryWriter

from segray.pixels.labels import Labels
from segray.pixels.pictures import colour_mask, draw_sheet
from segray.storage.files import write_bytes
from segray.storage.uri import join_uri
from segray.training.outputs.curves import draw_curves


def write_records(output: str, history: Sequence[dict[str, Any]], labels: Labels) -> None:
    """Rewrite ``metrics.jsonl`` and ``curves.png`` with all epochs so far."""
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in history)
    write_bytes(join_uri(output, "metrics.jsonl"), lines.encode())
    write_bytes(join_uri(output, "curves.png"), draw_curves(history, labels))


def write_events(output: str, record: dict[str, Any]) -> None:
    """Write a file in ``tensorboard/`` with every metric of an epoch as a scalar.

    Each epoch has a file of its own, because TensorBoard does not notice that a file that it has
    opened is replaced.
    """
    epoch = record["epoch"]
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for name, value in record.items():
                if name != "epoch" and value is not None:
                    writer.add_scalar(name, value, epoch)
        [events] = Path(folder).iterdir()
        # A fixed name, so that a resumed run replaces the file of an epoch that it repeats.
        uri = join_uri(output, "tensorboard", f"events.out.tfevents.{epoch:04d}.segray")
        write_bytes(uri, events.read_bytes())


def write_preview(
    output: str,
    epoch: int,
    images: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8],
    predicted: npt.NDArray[np.uint8],
    labels: Labels,
) -> None:
    """Write ``previews/epoch_NNNN.png``: each row is an image, its ground truth and prediction.

    Args:
        output: the URI of the run's folder.
        epoch: the epoch, from 1.
        images: uint8 [B, H, W, 3] RGB.
        truth: uint8 [B, H, W] of class ids.
        predicted: uint8 [B, H, W] of class ids.
        labels: the classes and their colours.
    """
    rows = [
        (image, colour_mask(true, labels), colour_mask(guess, labels))
        for image, true, guess in zip(images, truth, predicted, strict=True)
    ]
    buffer = io.BytesIO()
    draw_sheet(rows, ("image", "truth", "prediction"), labels).save(buffer, "PNG")
    write_bytes(join_uri(output, "previews", f"epoch_{epoch:04d}.png"), buffer.getvalue())

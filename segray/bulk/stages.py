"""The stages of a segmentation, each a function from an Arrow table to an Arrow table.

Failure is data: a row whose column ``error`` is not null says at which stage and why its image
could not be segmented, and the later stages pass it on.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from segray.bulk.config import MaskSize
from segray.model.bundle import Bundle
from segray.model.predictor import load_predictor
from segray.pixels.decoding import DecodeError, read_picture
from segray.pixels.labels import Labels
from segray.pixels.masks import encode_mask, segment_logits
from segray.pixels.statistics import ClassStatistics
from segray.storage.uri import describe_error, file_system

# Requests to have under way at once. A request waits far more than it computes.
_REQUESTS = 16

#: Files larger than this are not read: no image of `MAX_PIXELS` pixels needs as much.
MAX_FILE_BYTES = 1 << 29

_FAILURE = [("stage", pa.string()), ("error", pa.string()), ("message", pa.string())]
_KEYS = [("id", pa.int64()), ("uri", pa.string()), ("size", pa.int64())]
_FETCHED = pa.schema([*_KEYS, ("content", pa.binary()), *_FAILURE])
_SIZES = [("width", pa.int32()), ("height", pa.int32())]
_DECODED = pa.schema([*_KEYS, ("pixels", pa.binary()), *_SIZES, *_FAILURE])
_PREDICTED = pa.schema([*_KEYS, ("logits", pa.binary()), *_SIZES, *_FAILURE])


def fetch(images: pa.Table) -> pa.Table:
    """Read the images: ``id, uri, size`` -> ``content`` (the file's bytes), or why not."""
    with ThreadPoolExecutor(_REQUESTS) as requests:
        rows = list(requests.map(_fetch_one, images.to_pylist()))
    return pa.Table.from_pylist(rows, _FETCHED)


def _fetch_one(row: dict[str, Any]) -> dict[str, Any]:
    uri = row["uri"]
    if row["size"] > MAX_FILE_BYTES:
        too_large = DecodeError(f"is {row['size']} bytes large, over the limit of {MAX_FILE_BYTES}")
        return {**row, **_failure("fetch", too_large, str(too_large))}
    try:
        return {**row, "content": file_system(uri).cat_file(uri)}
    except Exception as error:
        # Whatever a store raises for one object, the other objects are not concerned.
        return {**row, **_failure("fetch", error, describe_error(uri, error))}


def decode(images: pa.Table, image_size: int) -> pa.Table:
    """Decode and scale: ``content`` -> ``pixels`` (uint8 [S, S, 3]), own ``width, height``."""
    rows = [_decode_one(row, image_size) for row in images.to_pylist()]
    return pa.Table.from_pylist(rows, _DECODED)


def _decode_one(row: dict[str, Any], image_size: int) -> dict[str, Any]:
    if row["error"]:
        return row
    try:
        picture = read_picture(row["content"], image_size)
    except DecodeError as error:
        return {**row, **_failure("decode", error.__cause__ or error, str(error))}
    return {
        **row,
        "pixels": picture.pixels.tobytes(),
        "width": picture.width,
        "height": picture.height,
    }


class Predict:
    """The network: ``pixels`` -> ``logits`` (float32 [S, S, C])."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Literal["tensorflow", "onnx"],
        threads: int,
    ) -> None:
        self._predictor = load_predictor(bundle, engine, threads)
        self._shape = (bundle.image_size, bundle.image_size, 3)

    def __call__(self, images: pa.Table) -> pa.Table:
        rows = images.to_pylist()
        good = [row for row in rows if not row["error"]]
        if good:
            pixels = [np.frombuffer(row["pixels"], np.uint8).reshape(self._shape) for row in good]
            for row, logits in zip(good, self._predictor.predict(np.stack(pixels)), strict=True):
                row["logits"] = logits.tobytes()
        return pa.Table.from_pylist(rows, _PREDICTED)


def make_masks(
    images: pa.Table, labels: Labels, image_size: int, mask_size: MaskSize, model: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Masks and statistics: ``logits`` -> rows of results, and beside them rows of errors."""
    results, errors = [], []
    for row in images.to_pylist():
        if row["error"]:
            errors.append(row)
            continue
        logits = np.frombuffer(row["logits"], np.float32).reshape(image_size, image_size, -1)
        own_size = (row["height"], row["width"])
        height, width = own_size if mask_size == "original" else (image_size, image_size)
        mask, statistics = segment_logits(logits, height, width)
        results.append(
            {
                **row,
                "mask": {
                    "bytes": encode_mask(mask, labels.palette),
                    "path": f"{PurePosixPath(row['uri']).stem}.png",
                },
                **_statistics_columns(statistics, labels),
                "model": model,
            }
        )
    return results, errors


def _statistics_columns(statistics: ClassStatistics, labels: Labels) -> dict[str, Any]:
    columns = zip(
        labels.names,
        statistics.pixels.tolist(),
        statistics.fractions.tolist(),
        statistics.confidences,
        strict=True,
    )
    row = {}
    for name, pixels, fraction, confidence in columns:
        row[f"pixels_{name}"] = pixels
        row[f"fraction_{name}"] = fraction
        row[f"confidence_{name}"] = confidence
    return row


def _failure(stage: str, error: BaseException, message: str) -> dict[str, str]:
    return {"stage": stage, "error": type(error).__name__, "message": message}

"""The stages of an evaluation, each a function from an Arrow table to an Arrow table.

Failures are data: if the column ``reason`` of a row is not null, it is the reason why the pair
could not be read, and later stages pass the row on.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from segray.data.labelled import DEFAULT_READING, Reading, read_pair
from segray.data.pairs import Pair
from segray.errors import InputError
from segray.evaluation.scores import Scores, number
from segray.model.bundle import Bundle
from segray.model.predictor import load_gpu_predictor, load_predictor
from segray.pixels.canvas import OVERLAP, Canvas
from segray.pixels.decoding import Picture
from segray.pixels.expected import ExpectedOverlap, ExpectedPixels
from segray.pixels.framing import Frame
from segray.pixels.labels import IGNORED, Labels
from segray.pixels.masks import MaskBuilder
from segray.pixels.metrics import summed_cross_entropy
from segray.storage.uri import describe_error

#: The input of the first stage; ``number`` is the position of a pair in the final order.
PAIRS_SCHEMA = pa.schema(
    [("number", pa.int64()), ("key", pa.string()), ("image", pa.string()), ("mask", pa.string())]
)

_KEYS = [*PAIRS_SCHEMA, pa.field("reason", pa.string())]
_SIZES = [pa.field(name, pa.int32()) for name in ("width", "height")]
_ORIENTATION = [pa.field("says", pa.string()), pa.field("turned", pa.bool_())]
_TRUTH = [*_SIZES, *_ORIENTATION, pa.field("truth", pa.large_binary())]
_READ = pa.schema([*_KEYS, *_TRUTH, ("pixels", pa.large_binary())])
_MASKS = [pa.field(name, pa.large_binary()) for name in ("mask_own", "prediction")]
#: The expected overlap in an image, lists of C.
OVERLAP_FIELDS = [
    pa.field("overlap_intersection", pa.list_(pa.float64())),
    pa.field("overlap_union", pa.list_(pa.float64())),
    pa.field("overlap_pixels", pa.list_(pa.int64())),
]
_STATISTICS = [pa.field("fractions", pa.list_(pa.float64())), pa.field("summed_loss", pa.float64())]
_PREDICTED = pa.schema([*_KEYS, *_TRUTH, *_MASKS, *OVERLAP_FIELDS, *_STATISTICS])

#: The resolutions at which prediction and ground truth are compared, as prefixes of columns: the
#: original resolution of the image, and the network's.
OWN, MODEL = "own", "model"

# Masks consist of long runs of one value and compress well. At the original resolution they would
# otherwise be most of the data transferred.
_CODEC = "lz4"


def read(
    pairs: pa.Table, labels: Labels, frame: Frame, reading: Reading = DEFAULT_READING
) -> pa.Table:
    """Read and decode pairs: ``pixels`` (uint8 [H, W, 3]) and ``truth`` (packed), or ``reason``."""
    rows = [_read_one(row, labels, frame, reading) for row in pairs.to_pylist()]
    return pa.Table.from_pylist(rows, _READ)


def _read_one(
    row: dict[str, Any], labels: Labels, frame: Frame, reading: Reading
) -> dict[str, Any]:
    try:
        pair = Pair(row["key"], row["image"], row["mask"])
        labelled = read_pair(pair, labels, frame, reading)
    except InputError as error:
        return {**row, "reason": str(error)}
    except Exception as error:
        # Whatever a store raises for one object concerns that object only.
        return {**row, "reason": f"{row['image']}: {describe_error(row['image'], error)}"}
    return {
        **row,
        "width": labelled.picture.width,
        "height": labelled.picture.height,
        "says": labelled.says,
        "turned": labelled.turned,
        "truth": pack(labelled.class_ids),
        "pixels": labelled.picture.pixels.tobytes(),
    }


class Predict:
    """Applies the network: ``pixels`` -> packed masks at both resolutions, and statistics."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Literal["tensorflow", "onnx"],
        use_gpu: bool,
        batch_size: int,
        overlap: float = OVERLAP,
        test_time_flip: bool = False,
        threads: int = 1,
    ) -> None:
        if use_gpu:
            self._predictor = load_gpu_predictor(bundle, engine, batch_size, test_time_flip)
        else:
            self._predictor = load_predictor(bundle, engine, threads, test_time_flip)
        self._frame, self._classes = bundle.frame, len(bundle.labels)
        self._batch_size, self._overlap = batch_size, overlap

    def __call__(self, images: pa.Table) -> pa.Table:
        rows = images.to_pylist()
        windows = self._cut(rows)
        while batch := list(itertools.islice(windows, self._batch_size)):
            logits = self._predictor.predict(np.stack([window for _, window in batch]))
            for (prediction, _), values in zip(batch, logits, strict=True):
                prediction.add(values)
        return pa.Table.from_pylist(rows, _PREDICTED)

    def _cut(
        self, rows: list[dict[str, Any]]
    ) -> Iterator[tuple["Prediction", npt.NDArray[np.uint8]]]:
        """Yield the windows of all images that could be read."""
        for row in rows:
            if not row["reason"]:
                prediction = Prediction(row, self._frame, self._classes, self._overlap)
                for window in prediction.windows():
                    yield prediction, window


class Prediction:
    """The prediction for an image; the last of its windows writes it into the image's row.

    Args:
        row: the image's row of `read`.
        frame: the frame of the network.
        classes: the number of classes.
        overlap: see `segray.pixels.canvas.Canvas`.
    """

    def __init__(self, row: dict[str, Any], frame: Frame, classes: int, overlap: float) -> None:
        self._row = row
        height, width = row["height"], row["width"]
        box = frame.place(height, width)
        shape = (box.height, box.width, 3) if frame.fit == "tile" else (*frame.shape, 3)
        pixels = np.frombuffer(row["pixels"], np.uint8).reshape(shape)
        picture = Picture(pixels, width, height, box)
        self._canvas = Canvas(picture, frame, classes, overlap)
        self._truth = scale_truth(unpack(row["truth"], height, width), frame)
        self._own = MaskBuilder(self._canvas.shape, height, width)
        self._model = MaskBuilder(self._canvas.shape, *self._canvas.shape[:2])
        self._expected = ExpectedPixels(self._canvas.shape)
        self._loss, self._rows, self._left = 0.0, 0, len(self._canvas)

    def windows(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield what the network takes, uint8 [H, W, 3] RGB."""
        return self._canvas.windows()

    def add(self, logits: npt.NDArray[np.float32]) -> None:
        """Add the logits of the next window, float32 [H, W, C]."""
        rows = self._canvas.add(logits)
        if rows is not None:
            self._own.add(rows)
            self._model.add(rows)
            self._expected.add(rows)
            truth = self._truth[self._rows : self._rows + len(rows)]
            self._loss += summed_cross_entropy(rows, truth)[0]
            self._rows += len(rows)
        self._left -= 1
        if not self._left:
            self._finish()

    def _finish(self) -> None:
        mask, statistics = self._own.finish()
        self._row["mask_own"] = pack(mask)
        self._row["fractions"] = statistics.fractions
        pixels = self._expected.finish(statistics)
        overlap = ExpectedOverlap.of(statistics.pixels, statistics.summed_confidence, pixels)
        self._row |= {f"overlap_{name}": values for name, values in vars(overlap).items()}
        self._row["prediction"] = pack(self._model.finish()[0])
        self._row["summed_loss"] = self._loss


def figures_schema(labels: Labels) -> pa.Schema:
    """Return the columns of ``per_image.parquet``, see docs/outputs/evaluation.md."""
    fields = [
        ("image", pa.string()),
        ("mask", pa.string()),
        *_SIZES,
        ("labelled_pixels", pa.int64()),
        ("mean_iou", pa.float64()),
        ("accuracy", pa.float64()),
        ("expected_iou", pa.float64()),
    ]
    kinds = ("iou", "dice", "precision", "recall", "boundary_iou", "expected_iou", "fraction")
    for kind in kinds:
        fields += [(f"{kind}_{name}", pa.float64()) for name in labels.names]
    at_model_resolution = ("model_resolution_mean_iou", "model_resolution_accuracy", "loss")
    return pa.schema([*fields, *((name, pa.float64()) for name in at_model_resolution)])


def counted_schema(labels: Labels) -> pa.Schema:
    """Return the columns of `count`: the metrics of each image, and the counts to be summed."""
    counts = [
        (f"{size}_{name}", pa.list_(kind))
        for size in (OWN, MODEL)
        for name, kind in (("cells", pa.int32()), ("counts", pa.int64()), ("boundary", pa.int64()))
    ]
    return pa.schema(
        [
            ("number", pa.int64()),
            ("reason", pa.string()),
            *_ORIENTATION,
            *figures_schema(labels),
            *counts,
            *OVERLAP_FIELDS,
            ("summed_loss", pa.float64()),
            ("prediction", pa.binary()),  # as the network sees the image, packed
        ]
    )


def count(
    images: pa.Table,
    labels: Labels,
    frame: Frame,
    usual_shares: Sequence[float],
    iou_exponent: float = 1.0,
) -> pa.Table:
    """Compare masks with the ground truth -> metrics and counts of each image."""
    rows = [
        _count_one(row, labels, frame, usual_shares, iou_exponent) for row in images.to_pylist()
    ]
    return pa.Table.from_pylist(rows, counted_schema(labels))


def _count_one(
    row: dict[str, Any],
    labels: Labels,
    frame: Frame,
    usual_shares: Sequence[float],
    iou_exponent: float,
) -> dict[str, Any]:
    if row["reason"]:
        return row
    classes, height, width = len(labels), row["height"], row["width"]
    truth = unpack(row["truth"], height, width)
    own = Scores.compare(truth, unpack(row["mask_own"], height, width), classes)
    small_truth = scale_truth(truth, frame)
    model = Scores.compare(small_truth, unpack(row["prediction"], *small_truth.shape), classes)
    pixels = int((small_truth != IGNORED).sum())
    overlap = {field.name: row[field.name] for field in OVERLAP_FIELDS}
    expected = ExpectedOverlap(*(np.array(values) for values in overlap.values()))
    figures = own.class_figures()
    figures["fraction"] = row["fractions"]
    figures["expected_iou"] = [number(iou) for iou in expected.class_iou(iou_exponent)]
    return {
        **{name: row[name] for name in ("number", "image", "mask", "width", "height")},
        **{name: row[name] for name in ("says", "turned")},
        "labelled_pixels": own.pixels,
        "mean_iou": own.mean_iou,
        "accuracy": own.accuracy,
        "expected_iou": float(expected.image_iou(usual_shares, iou_exponent)),
        **{
            f"{kind}_{name}": value
            for kind, values in figures.items()
            for name, value in zip(labels.names, values, strict=True)
        },
        "model_resolution_mean_iou": model.mean_iou,
        "model_resolution_accuracy": model.accuracy,
        "loss": row["summed_loss"] / pixels if pixels else None,
        **own.to_columns(OWN),
        **model.to_columns(MODEL),
        **overlap,
        "summed_loss": row["summed_loss"],
        "prediction": row["prediction"],
    }


def scale_truth(truth: npt.NDArray[np.uint8], frame: Frame) -> npt.NDArray[np.uint8]:
    """Scale class ids to the resolution at which the network sees their image, without padding.

    Args:
        truth: uint8 [H, W] of class ids or `segray.pixels.labels.IGNORED`.
        frame: the frame of the network.
    """
    return frame.crop(frame.scale_mask(truth), *truth.shape)


def pack(mask: npt.NDArray[np.uint8]) -> bytes:
    """Compress a mask, uint8 [H, W]."""
    return pa.compress(np.ascontiguousarray(mask), codec=_CODEC, asbytes=True)


def unpack(packed: bytes, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return the mask that `pack` compressed, uint8 [height, width]."""
    content = pa.decompress(packed, height * width, codec=_CODEC, asbytes=True)
    return np.frombuffer(content, np.uint8).reshape(height, width)

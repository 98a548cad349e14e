"""The reference of a trained model (`segray.model.reference`), made of its images and scores."""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from segray.errors import InputError
from segray.evaluation.write import PER_IMAGE
from segray.model.bundle import Bundle
from segray.model.reference import IMAGE_FEATURES, count_features, mask_features, write_reference
from segray.pixels.appearance import measure_appearance
from segray.pixels.decoding import DecodeError, read_picture
from segray.pixels.framing import Frame
from segray.pixels.wide import ValueRange
from segray.storage.files import read_bytes
from segray.storage.tables import read_table
from segray.storage.uri import join_uri
from segray.training.data.dataset import DataSet

log = logging.getLogger(__name__)

# Images that are enough for histograms, and that a task measures.
_IMAGES, _PER_TASK = 2048, 32


def make_reference(bundle: Bundle, data: DataSet, evaluation: str, seed: int) -> None:
    """Write the reference of a model into its bundle. Ray must have been started.

    The features of images are those of a random sample of both sets. The features of masks are
    those of the validation set alone, because masks of images that a network has learned are too
    good.

    Args:
        bundle: the model.
        data: the images that it was trained and validated on.
        evaluation: the URI of the evaluation on its validation set.
        seed: the seed of the sample.

    Raises:
        InputError: no image can be read any more, or the file cannot be written.
    """
    pairs = [*data.train.examples.pairs, *data.validation.examples.pairs]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:_IMAGES]
    images = [pairs[index].image for index in chosen]
    tasks = [
        _measure.remote(images[start : start + _PER_TASK], bundle.frame, data.reading.value_range)
        for start in range(0, len(images), _PER_TASK)
    ]
    measured = pa.concat_tables([table for table in ray.get(tasks) if table is not None])
    if len(measured) < len(images):
        log.info(f"{len(images) - len(measured)} image(s) cannot be read any more")
    if not len(measured):
        raise InputError(
            f"no image can be read any more, such as {images[0]}; the model is trained: put the "
            "data back and run the same command again"
        )
    features = mask_features(bundle.labels)
    columns = sorted({name for feature in features for name in feature.columns})
    scored = read_table(join_uri(evaluation, PER_IMAGE), columns)
    histograms = {
        **count_features(IMAGE_FEATURES, _as_arrays(measured)),
        **count_features(features, _as_arrays(scored)),
    }
    write_reference(bundle.uri, bundle.digest, histograms)


def _as_arrays(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    return {name: table[name].to_numpy() for name in table.column_names}


@ray.remote(num_cpus=1)
def _measure(uris: list[str], frame: Frame, value_range: ValueRange | None) -> pa.Table:
    """Return the columns that the features of images need; unreadable images are left out."""
    rows = []
    for uri in uris:
        try:
            picture = read_picture(read_bytes(uri), frame, value_range)
        except (DecodeError, InputError):
            continue
        size = {"width": picture.width, "height": picture.height}
        rows.append(size | vars(measure_appearance(picture)))
    return pa.Table.from_pylist(rows) if rows else None

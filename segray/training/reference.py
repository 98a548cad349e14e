"""The reference of a trained model (`segray.model.reference`), made of its images and scores."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from segray.errors import InputError
from segray.model.bundle import Bundle
from segray.model.reference import IMAGE_FEATURES, count_features, mask_features, write_reference
from segray.pixels.appearance import measure_appearance
from segray.pixels.decoding import DecodeError, read_picture
from segray.pixels.framing import Frame
from segray.pixels.wide import ValueRange
from segray.storage.files import read_bytes
from segray.training.data.dataset import DataSet

# Images that are enough for histograms, and that a task measures.
_IMAGES, _PER_TASK = 2048, 32


def make_reference(bundle: Bundle, figures: pa.Table, data: DataSet, seed: int) -> None:
    """Write the reference of a model into its bundle. Ray must have been started.

    The features of images are those of a random sample of both sets. The features of masks are
    those of the validation set alone, because masks of images that a network has learned are too
    good.

    Args:
        bundle: the model.
        figures: the metrics of each image of the validation set, as in ``per_image.parquet``.
        data: the images that it was trained and validated on.
        seed: the seed of the sample.

    Raises:
        InputError: an image cannot be read any more, or the file cannot be written.
    """
    pairs = [*data.train.examples.pairs, *data.validation.examples.pairs]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:_IMAGES]
    images = [pairs[index].image for index in chosen]
    tasks = [
        _measure.remote(images[start : start + _PER_TASK], bundle.frame, data.reading.value_range)
        for start in range(0, len(images), _PER_TASK)
    ]
    measured = ray.get(tasks)
    if problem := next((part for part in measured if isinstance(part, str)), None):
        raise InputError(
            f"{problem}; the model is trained: put the data back and run the same command again"
        )
    features = mask_features(bundle.labels)
    columns = [name for feature in features for name in feature.columns]
    histograms = {
        **count_features(IMAGE_FEATURES, _as_arrays(pa.concat_tables(measured))),
        **count_features(features, _as_arrays(figures.select(columns))),
    }
    write_reference(bundle.uri, bundle.digest, histograms)


def _as_arrays(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    return {name: table[name].to_numpy() for name in table.column_names}


# A task that dies with its node is run again, as the tasks that decode the examples are.
@ray.remote(num_cpus=1, max_retries=-1)
def _measure(uris: list[str], frame: Frame, value_range: ValueRange | None) -> pa.Table | str:
    """Return the columns that the features of images need, or the reason why there are none."""
    rows = []
    for uri in uris:
        try:
            picture = read_picture(read_bytes(uri), frame, value_range)
        except InputError as error:
            return str(error)
        except DecodeError as error:
            return f"{uri}: {error}"
        size = {"width": picture.width, "height": picture.height}
        rows.append(size | vars(measure_appearance(picture)))
    return pa.Table.from_pylist(rows)

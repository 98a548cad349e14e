"""Examples: pairs of image and mask, decoded once by Ray Data and kept in the object store."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import ray.data
from PIL import Image

from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.storage.labelled import read_pair
from segray.storage.pairs import Pair

_PAIRS_PER_TASK = 32


@dataclass(frozen=True)
class Examples:
    """Images and masks at the model's size, as blocks in Ray's object store.

    Attributes:
        blocks: references to Arrow tables with the columns ``image`` (S*S*3 bytes) and ``mask``
            (S*S bytes).
        positions: int64 [N, 2], the block and the row of each example.
        image_size: S, in pixels.
    """

    blocks: Sequence["ray.ObjectRef[Any]"]
    positions: npt.NDArray[np.int64]
    image_size: int

    def __len__(self) -> int:
        return len(self.positions)

    def select(self, indices: Sequence[int]) -> "Examples":
        """Some of the examples, over the same blocks."""
        return Examples(self.blocks, self.positions[list(indices)], self.image_size)

    def fetch(self) -> "FetchedExamples":
        """Map the blocks into this process; on the node that holds them nothing is copied."""
        return FetchedExamples(self)


class FetchedExamples:
    """Examples that can be read, in any order."""

    def __init__(self, examples: Examples) -> None:
        self._positions = examples.positions
        size = examples.image_size
        used = np.unique(examples.positions[:, 0])
        tables = ray.get([examples.blocks[block] for block in used])
        self._images, self._masks = {}, {}
        for block, table in zip(used.tolist(), tables, strict=True):
            self._images[block] = _as_array(table["image"], (size, size, 3))
            self._masks[block] = _as_array(table["mask"], (size, size))

    def __len__(self) -> int:
        return len(self._positions)

    def batch(
        self, indices: npt.NDArray[np.integer[Any]]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Images uint8 [B, S, S, 3] and masks uint8 [B, S, S] of class ids or `IGNORED`."""
        places = self._positions[indices].tolist()
        images = np.stack([self._images[block][row] for block, row in places])
        masks = np.stack([self._masks[block][row] for block, row in places])
        return images, masks


def decode_pairs(
    pairs: Sequence[Pair], labels: Labels, image_size: int, progress: Callable[[int], None]
) -> tuple[Examples, str]:
    """Read and decode pairs, each once, on all of the cluster.

    Args:
        pairs: what to read.
        labels: says which mask value is which class.
        image_size: the side of the square that images and masks are scaled to, in pixels.
        progress: is called with the number of pairs done so far.

    Returns:
        The examples in the order of `pairs`, and a digest of all files read.

    Raises:
        InputError: a file cannot be read, or a mask does not fit its image or the classes; the
            message has the first such file and how many there are.
    """
    rows = [{"key": pair.key, "image": pair.image, "mask": pair.mask} for pair in pairs]
    tables = [
        pa.Table.from_pylist(rows[start : start + _PAIRS_PER_TASK])
        for start in range(0, len(rows), _PAIRS_PER_TASK)
    ]
    decoded = ray.data.from_arrow(tables).map_batches(
        _decode_table,
        batch_format="pyarrow",
        batch_size=None,
        fn_kwargs={"labels": labels, "image_size": image_size},
        # Ray Data keeps half of the CPUs in reserve; a task waits for its store half of the time.
        num_cpus=0.5,
    )
    blocks: list[ray.ObjectRef[Any]] = []
    done = 0
    for bundle in decoded.iter_internal_ref_bundles():
        blocks += bundle.block_refs
        done += bundle.num_rows()
        progress(done)
    return _index(blocks, pairs, image_size)


def _index(
    blocks: "list[ray.ObjectRef[Any]]", pairs: Sequence[Pair], image_size: int
) -> tuple[Examples, str]:
    summaries = ray.get([_summarise.remote(block) for block in blocks])
    position_of = {}
    digests, errors = {}, {}
    for number, summary in enumerate(summaries):
        for row, (key, digest, error) in enumerate(zip(*summary, strict=True)):
            position_of[key] = (number, row)
            digests[key] = digest
            if error:
                errors[key] = error
    if errors:
        first = next(pair.key for pair in pairs if pair.key in errors)
        more = f" (and {len(errors) - 1} more such pairs)" if len(errors) > 1 else ""
        raise InputError(errors[first] + more)
    positions = np.array([position_of[pair.key] for pair in pairs], dtype=np.int64)
    fingerprint = hashlib.sha256("".join(p.key + digests[p.key] for p in pairs).encode())
    return Examples(blocks, positions, image_size), fingerprint.hexdigest()[:16]


@ray.remote(num_cpus=0)
def _summarise(table: pa.Table) -> list[list[Any]]:
    """The small columns of a block, so that no pixel travels to the driver."""
    return [table[name].to_pylist() for name in ("key", "digest", "error")]


def _decode_table(table: pa.Table, labels: Labels, image_size: int) -> pa.Table:
    rows = [_decode_pair(row, labels, image_size) for row in table.to_pylist()]
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("image", pa.binary(image_size * image_size * 3)),
            ("mask", pa.binary(image_size * image_size)),
            ("digest", pa.string()),
            ("error", pa.string()),
        ]
    )
    return pa.Table.from_pylist(rows, schema)


def _decode_pair(row: dict[str, str], labels: Labels, size: int) -> dict[str, Any]:
    """A decoded row, or one whose column ``error`` says why there is none."""
    try:
        labelled = read_pair(Pair(**row), labels, size)
    except InputError as error:
        return {"key": row["key"], "error": str(error)}
    mask = Image.fromarray(labelled.class_ids)
    return {
        "key": row["key"],
        "image": labelled.picture.pixels.tobytes(),
        "mask": mask.resize((size, size), Image.Resampling.NEAREST).tobytes(),
        "digest": labelled.digest,
    }


def _as_array(column: pa.ChunkedArray, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """A column of equally long byte strings as uint8 [N, *shape], without a copy."""
    values = column.combine_chunks()
    _, data = values.buffers()
    flat = np.frombuffer(data, dtype=np.uint8).reshape(-1, *shape)
    return flat[values.offset : values.offset + len(values)]

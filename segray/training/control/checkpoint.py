"""Checkpoints: the complete state of a training run at the end of an epoch.

A checkpoint is one file that is written atomically: it is either complete or absent. The last two
checkpoints and the best one are kept. The previous best is kept for one more epoch, so that a run
that resumes from the last checkpoint but one still finds its best.
"""

import contextlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segray.errors import InputError
from segray.storage.files import child_names, read_bytes, remove, remove_partial, write_bytes
from segray.storage.uri import join_uri
from segray.training.step.network import TrainableNetwork

_NAME = re.compile(r"epoch_(\d{4,})\.npz")
_MODEL, _OPTIMIZERS, _PROGRESS = "model", "optimizers", "progress"
_PRECISION = "precision"


@dataclass
class Progress:
    """The progress of a training run.

    Attributes:
        history: one record per finished epoch, as in metrics.jsonl.
        best_epoch: the epoch (from 1) with the highest mean IoU; 0 before the first. If its
            checkpoint was lost, the best epoch that still has one.
        best_before: the value of `best_epoch` before the last epoch.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_before: int = 0

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    def add(self, record: dict[str, Any]) -> None:
        """Append the record of the epoch that just finished."""
        self.history.append(record)
        self.best_before = self.best_epoch
        if not self.best_epoch or self.score(self.epoch) > self.score(self.best_epoch):
            self.best_epoch = self.epoch

    def score(self, epoch: int) -> float:
        """Return the score that epochs are ranked by, their mean IoU."""
        score: float = self.history[epoch - 1]["mean_iou"]
        return score

    def is_over(self, epochs: int, patience: int) -> bool:
        """Return True if all epochs are done or the best one is `patience` epochs ago."""
        stale = bool(patience) and self.epoch - self.best_epoch >= patience
        return self.epoch >= epochs or stale


class Checkpoints:
    """The checkpoints of a run.

    Args:
        uri: the URI of their folder.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def save(self, network: TrainableNetwork, progress: Progress) -> None:
        """Write a checkpoint of the epoch just finished, and delete those no longer needed.

        Raises:
            InputError: the folder cannot be written.
        """
        arrays = {f"{_MODEL}/{i}": np.asarray(v) for i, v in enumerate(network.model.variables)}
        for i, optimizer in enumerate(network.optimizers):
            for j, variable in enumerate(optimizer.variables):
                arrays[f"{_OPTIMIZERS}/{i}/{j}"] = np.asarray(variable)
        document = {**asdict(progress), _PRECISION: network.model.dtype_policy.name}
        arrays[_PROGRESS] = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_bytes(self._file(progress.epoch), buffer.getvalue())
        # A run may have to resume from the last checkpoint but one, and then needs that epoch's
        # best.
        kept = (progress.epoch, progress.epoch - 1, progress.best_epoch, progress.best_before)
        for epoch in self.epochs():
            if epoch not in kept:
                remove(self._file(epoch))
        remove_partial(self._uri)

    def epochs(self) -> list[int]:
        """Return the epochs that have a checkpoint, in ascending order."""
        found = (_NAME.fullmatch(name) for name in child_names(self._uri))
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> int:
        """Return the last epoch with an intact checkpoint; 0 if there is none.

        Raises:
            InputError: the folder cannot be read. The run must not start over in that case.
        """
        return self._first_whole(reversed(self.epochs()))

    def best(self, progress: Progress) -> int:
        """Return the best epoch with an intact checkpoint; 0 if there is none.

        Raises:
            InputError: the folder cannot be read.
        """
        epochs = [epoch for epoch in self.epochs() if epoch <= progress.epoch]
        # Ties go to the first epoch whose checkpoint is still there.
        return self._first_whole(sorted(epochs, key=progress.score, reverse=True))

    def load(self, epoch: int, network: TrainableNetwork) -> Progress:
        """Restore a network and its optimizers to their state at the end of an epoch.

        Raises:
            InputError: the checkpoint is missing or damaged, or it belongs to another network or to
                another numeric precision.
        """
        arrays = self._read(epoch)
        variables = [(f"{_MODEL}/{i}", v) for i, v in enumerate(network.model.variables)]
        for i, optimizer in enumerate(network.optimizers):
            variables += [(f"{_OPTIMIZERS}/{i}/{j}", v) for j, v in enumerate(optimizer.variables)]
        # Check all shapes first, so that the network is never restored in part.
        saved = {name: a.shape for name, a in arrays.items() if name != _PROGRESS}
        if saved != {name: tuple(variable.shape) for name, variable in variables}:
            raise InputError(f"{self._file(epoch)} is not of this network: give another --output")
        document = json.loads(arrays[_PROGRESS].tobytes())
        now, before = network.model.dtype_policy.name, document.pop(_PRECISION)
        if before != now:
            raise InputError(
                f"{self._file(epoch)} was trained in {before}, and this machine would go on in "
                f"{now}: run on the same kind of GPU or CPU as before, or give another --output"
            )
        for name, variable in variables:
            variable.assign(arrays[name])
        return Progress(**document)

    def load_model(self, epoch: int, model: Any) -> None:
        """Load the weights at the end of an epoch into a network of the same architecture.

        Raises:
            InputError: the checkpoint is missing or damaged.
        """
        arrays = self._read(epoch)
        for i, variable in enumerate(model.variables):
            variable.assign(arrays[f"{_MODEL}/{i}"])

    def _first_whole(self, epochs: Iterable[int]) -> int:
        for epoch in epochs:
            content = read_bytes(self._file(epoch))
            with contextlib.suppress(InputError):
                self._parse(epoch, content)
                return epoch
        return 0

    def _read(self, epoch: int) -> dict[str, npt.NDArray[Any]]:
        return self._parse(epoch, read_bytes(self._file(epoch)))

    def _parse(self, epoch: int, content: bytes) -> dict[str, npt.NDArray[Any]]:
        try:
            # Each array in the archive has its own checksum.
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            arrays[_PROGRESS]  # the last array written
        # numpy and zipfile raise many kinds of errors for a damaged archive, even
        # NotImplementedError.
        except Exception as error:
            raise InputError(f"{self._file(epoch)} is damaged: delete it and run again") from error
        return arrays

    def _file(self, epoch: int) -> str:
        return join_uri(self._uri, f"epoch_{epoch:04d}.npz")

"""Checkpoints: all that a training run needs to go on from the end of an epoch.

A checkpoint is one file, written in one go: it is there and whole, or it is not there. The last two
are kept, that of the best epoch, and for an epoch that of the best before it: a run that goes on
from the last but one finds its best, too.
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
from segray.training.network import TrainableNetwork

_NAME = re.compile(r"epoch_(\d{4,})\.npz")
_MODEL, _OPTIMIZERS, _PROGRESS = "model", "optimizers", "progress"
_PRECISION = "precision"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        history: one record per finished epoch, as in metrics.jsonl.
        best_epoch: the epoch (from 1) with the highest mean IoU; 0 before the first. If its
            checkpoint was lost, the best of those that were left.
        best_before: what it was before the last epoch.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_before: int = 0

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    def add(self, record: dict[str, Any]) -> None:
        """Take up the record of the epoch that was just finished."""
        self.history.append(record)
        self.best_before = self.best_epoch
        if not self.best_epoch or self.score(self.epoch) > self.score(self.best_epoch):
            self.best_epoch = self.epoch

    def score(self, epoch: int) -> float:
        """What epochs are compared by."""
        # Only where no pixel is labelled is there no mean: no other epoch is worse.
        return self.history[epoch - 1]["mean_iou"] or 0.0

    def is_over(self, epochs: int, patience: int) -> bool:
        """Whether no epoch is left: all are done, or the best one is `patience` epochs ago."""
        stale = bool(patience) and self.epoch - self.best_epoch >= patience
        return self.epoch >= epochs or stale


class Checkpoints:
    """The checkpoints of a run.

    Args:
        uri: of their folder.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def save(self, network: TrainableNetwork, progress: Progress) -> None:
        """Write a checkpoint of the epoch just finished, and delete those that are not needed.

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
        # The run may have to go on from the last but one, and has its best then, too.
        kept = (progress.epoch, progress.epoch - 1, progress.best_epoch, progress.best_before)
        for epoch in self.epochs():
            if epoch not in kept:
                remove(self._file(epoch))
        remove_partial(self._uri)

    def epochs(self) -> list[int]:
        """The epochs that have a checkpoint, in their order."""
        found = (_NAME.fullmatch(name) for name in child_names(self._uri))
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> int:
        """The last epoch whose checkpoint is whole; 0 if there is none.

        Raises:
            InputError: the folder cannot be read: what is there is not to be begun anew.
        """
        return self._first_whole(reversed(self.epochs()))

    def best(self, progress: Progress) -> int:
        """The best epoch whose checkpoint is whole; 0 if there is none.

        Raises:
            InputError: the folder cannot be read.
        """
        epochs = [epoch for epoch in self.epochs() if epoch <= progress.epoch]
        # Of equal ones the first, as long as it is kept.
        return self._first_whole(sorted(epochs, key=progress.score, reverse=True))

    def load(self, epoch: int, network: TrainableNetwork) -> Progress:
        """Bring a network to where it was at the end of an epoch.

        Raises:
            InputError: the checkpoint is missing or damaged, of another network, or of one that
                computed in another precision.
        """
        arrays = self._read(epoch)
        variables = [(f"{_MODEL}/{i}", v) for i, v in enumerate(network.model.variables)]
        for i, optimizer in enumerate(network.optimizers):
            variables += [(f"{_OPTIMIZERS}/{i}/{j}", v) for j, v in enumerate(optimizer.variables)]
        # All of it or nothing: half of another network would be neither.
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
        """Give a network of the same architecture the weights of the end of an epoch.

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
            # Each array of the archive carries a checksum of its own.
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            arrays[_PROGRESS]  # the last one written
        # A damaged archive raises all that its parts do, up to NotImplementedError.
        except Exception as error:
            raise InputError(f"{self._file(epoch)} is damaged: delete it and run again") from error
        return arrays

    def _file(self, epoch: int) -> str:
        return join_uri(self._uri, f"epoch_{epoch:04d}.npz")

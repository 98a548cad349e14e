"""The start of a training from an earlier model: its network, and what fits of its last layer."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segray.errors import InputError
from segray.model.architecture import Architecture
from segray.model.bundle import WEIGHTS, open_bundle
from segray.pixels.wide import ValueRange

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartingModel:
    """A model that a training goes on from.

    Attributes:
        uri: the URI of its bundle.
        digest: see `segray.model.bundle.Bundle`.
        architecture: the settings of its network.
        names: the names of its classes.
        weights: the content of its weights file.
        value_range: see `segray.model.bundle.Bundle`.
    """

    uri: str
    digest: str
    architecture: Architecture
    names: tuple[str, ...]
    weights: bytes
    value_range: ValueRange | None = None

    def copy_to(self, model: "keras.Model", names: Sequence[str]) -> None:
        """Copy the weights into a network.

        Classes of the same name keep their filters in the last layer. Those of other classes are
        left as they are.

        Args:
            model: a network of `segray.model.unet.build_unet` whose architecture differs in the
                resolution and in the number of classes alone.
            names: the names of its classes.
        """
        from segray.model.unet import build_unet, load_weights_content

        _, height, width, _ = model.input_shape
        source = build_unet(replace(self.architecture, height=height, width=width), b"")
        load_weights_content(source, self.weights)
        shared = [(i, self.names.index(name)) for i, name in enumerate(names) if name in self.names]
        for own, other in zip(model.variables, source.variables, strict=True):
            values = other.numpy()
            if own.path.startswith("logits/"):
                # The kernel is [3, 3, C, channels], the bias [C].
                axis = 2 if values.ndim == 4 else 0
                mixed = own.numpy().swapaxes(0, axis)
                for i, j in shared:
                    mixed[i] = values.swapaxes(0, axis)[j]
                values = mixed.swapaxes(0, axis)
            own.assign(values)


def open_start(uri: str, architecture: Architecture, names: Sequence[str]) -> StartingModel:
    """Open the bundle of a model to go on from.

    Args:
        uri: the folder of the bundle.
        architecture: the settings of the network that is to be trained.
        names: the names of its classes.

    Raises:
        InputError: there is no bundle, or its network has other settings.
    """
    bundle = open_bundle(uri, [WEIGHTS])
    before = bundle.architecture.to_json()
    for name, now in architecture.to_json().items():
        if name not in ("classes", "image_size") and before[name] != now:
            raise InputError(
                f"the model in {uri} has {_spell(name, before[name])}, and this training "
                f"{_spell(name, now)}: give that of the model"
            )
    new = [name for name in names if name not in bundle.labels.names]
    log.info(
        f"starting from the model {bundle.digest} in {bundle.uri}"
        + (f"; the classes {', '.join(new)} are new to it" if new else "")
    )
    return StartingModel(
        bundle.uri,
        bundle.digest,
        bundle.architecture,
        bundle.labels.names,
        bundle.files[WEIGHTS],
        bundle.value_range,
    )


def _spell(name: str, value: object) -> str:
    flag = name.replace("_", "-")
    if value is None:
        return f"no --{flag}"
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"

"""Training runs for tests: their settings, the run itself, and what it comes to."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from segray.data.pairs import find_pairs
from segray.nodes import SharedFiles
from segray.pixels.framing import Frame
from segray.storage.files import write_bytes
from segray.storage.output import SETTINGS
from segray.storage.uri import join_uri
from segray.training.config import TrainConfig
from segray.training.control.assignment import Assignment
from segray.training.data.examples import Examples, decode_pairs
from segray.training.outputs.tracking import History
from segray.training.plan import prepare_training
from segray.training.recipes import RECIPES
from tests.support import logged_lines


def settings(data: str, output: str, encoder: str, **others: object) -> TrainConfig:
    defaults: dict[str, object] = {
        "classes": ("box=10", "ground=20"),
        "image_size": 32,
        "epochs": 2,
        "batch_size": 8,
        "encoder_weights": encoder,
        "validation_fraction": 0.2,
    }
    return TrainConfig(
        images=join_uri(data, "images"),
        masks=join_uri(data, "masks"),
        output=output,
        **{**defaults, **others},  # type: ignore[arg-type]
    )


def tutorial_settings() -> dict[str, object]:
    """The settings in which the tutorial's recipe differs from segray's."""
    ours = vars(RECIPES["segray"]())
    return {
        name: value for name, value in vars(RECIPES["tutorial"]()).items() if value != ours[name]
    }


def assign(
    data: Path, output: Path, encoder: str | None = None, keep: bool = True, **settings: object
) -> Assignment:
    """A run of one step on the images of a folder, of two at a time; its own folder is claimed."""
    import ray

    output.mkdir()
    (output / SETTINGS).write_text("{}")
    defaults: dict[str, object] = {
        "classes": ("box=10", "ground=20"),
        "image_size": 32,
        "detail": 1.0,
        "batch_size": 2,
        "epochs": 1,
    }
    if settings.get("fit") == "tile":
        del defaults["detail"]  # of images that are scaled
    config = TrainConfig(
        images=f"{data}/images",
        masks=f"{data}/masks",
        **{**defaults, **settings},  # type: ignore[arg-type]
    )

    def decode(frame: Frame) -> Examples:
        pairs = find_pairs(f"{data}/images", f"{data}/masks").pairs
        return decode_pairs(pairs, config.labels, frame, keep, lambda done: None).examples

    return Assignment(
        config=config,
        output=str(output),
        shared=SharedFiles.of({"--output": str(output / SETTINGS)}),
        train=decode(config.training_frame),
        validation=decode(config.frame),
        class_weights=np.ones(2, np.float32),
        encoder_weights=None if encoder is None else ray.put(Path(encoder).read_bytes()),
        record={"configuration": config.to_json()},
    )


def hold(cpus: int) -> object:
    """Somebody else's actor on the cluster, which has two CPUs."""
    import ray

    class Other:
        def here(self) -> bool:
            return True

    actor = ray.remote(num_cpus=cpus)(Other).remote()
    ray.get(actor.here.remote())
    return actor


def run(config: TrainConfig):
    """What jobs/train.py does, and the lines that it would print."""
    from segray.training.run import train

    with logged_lines() as lines:
        summary = train(prepare_training(config))
    return summary, lines


def fit_as(
    finished: Path, assignments: list[Assignment] | None = None
) -> Callable[[Assignment, Callable[[History], None]], None]:
    """Stand in for `fit` where the fitting is not what a test is about.

    Args:
        finished: the output of a real run with settings that `settings` gives, which is what comes
            of the fitting: a model, its checkpoints and its records.
        assignments: receives what would have been learned from.
    """

    def fit(assignment: Assignment, track: Callable[[History], None]) -> None:
        if assignments is not None:
            assignments.append(assignment)
        for name in ("checkpoints", "curves.png", "metrics.jsonl", "model", "previews"):
            for path in finished.rglob("*"):
                place = path.relative_to(finished)
                if place.parts[0] == name and path.is_file():
                    write_bytes(join_uri(assignment.output, *place.parts), path.read_bytes())

    return fit


def scores(output: Path) -> list[dict]:
    """The records of the epochs, without what says how fast they went."""
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    timing = ("images_per_second", "waiting", "seconds")
    return [{k: v for k, v in record.items() if k not in timing} for record in records]


def weights(output: Path) -> str:
    """The digest of the weights of the bundle."""
    with h5py.File(output / "model" / "model.weights.h5") as file:
        digest = hashlib.sha256()
        # A file's bytes hold times, too.
        file.visititems(
            lambda _, item: (
                digest.update(item[()].tobytes()) if isinstance(item, h5py.Dataset) else None
            )
        )
    return digest.hexdigest()

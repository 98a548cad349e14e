"""The other sides of benchmarks/bulk.py: what people do without segray, a process for each.

python benchmarks/bulk_sides.py SIDE MODEL IMAGES OUTPUT
"""

import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from segray.job import quiet_native_logs
from segray.model.architecture import Architecture
from segray.model.bundle import ONNX, WEIGHTS, open_bundle

_BATCH = 32
_ROWS = 64  # in a file of tf.data's side, and fewer where there are few images


def make_model(folder: str, fit: Literal["squash", "tile"]) -> None:
    with quiet_native_logs():
        import keras

        from segray.model.bundle import write_bundle
        from segray.model.unet import build_unet
        from segray.pixels.framing import Frame
        from segray.pixels.labels import Labels

    keras.utils.set_random_seed(0)
    labels = Labels.parse(("pet=1", "background=2", "border=3"))
    size = 256 if fit == "tile" else 128
    architecture = Architecture(3, size, size)
    frame = Frame(size, size, fit)
    write_bundle(folder, build_unet(architecture), architecture, labels, {}, frame)


def _load_keras(model: str) -> Any:
    """The network, as a function from uint8 [B, S, S, 3] to logits, and its size."""
    with quiet_native_logs():
        import tensorflow as tf

        from segray.model.unet import build_unet, load_weights_content

    bundle = open_bundle(model, [WEIGHTS])
    network = build_unet(bundle.architecture)
    load_weights_content(network, bundle.files[WEIGHTS])
    return tf.function(lambda images: network(images, training=False)), bundle.architecture.height


def ray_data(model: str, images: str, output: str) -> None:
    """https://docs.ray.io/en/latest/data/batch_inference.html"""
    import ray

    class Predictor:
        def __init__(self) -> None:
            self.network, self.size = _load_keras(model)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            import tensorflow as tf

            small = [tf.image.resize(image, (self.size, self.size)) for image in batch["image"]]
            logits = self.network(tf.cast(tf.stack(small), tf.uint8))
            masks, counts = [], []
            for image, values in zip(batch["image"], logits, strict=True):
                mask = tf.argmax(tf.image.resize(values, image.shape[:2]), -1).numpy()
                masks.append(_encode(mask))
                counts.append(np.bincount(mask.ravel(), minlength=values.shape[-1]))
            return {
                "path": batch["path"],
                "mask": np.array(masks, object),
                "pixels": np.stack(counts),
            }

    ray.init(log_to_driver=False)
    ray.data.read_images(images, mode="RGB", include_paths=True).map_batches(
        Predictor, batch_size=_BATCH, compute=ray.data.ActorPoolStrategy(size=1)
    ).write_parquet(f"{output}/results")


def tf_data(model: str, images: str, output: str) -> None:
    import pandas as pd
    import tensorflow as tf

    network, size = _load_keras(model)

    def read(path: Any) -> Any:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        image.set_shape((None, None, 3))
        small = tf.cast(tf.round(tf.image.resize(image, (size, size), antialias=True)), tf.uint8)
        return path, small, tf.shape(image)[:2]

    paths = sorted(str(path) for path in Path(images).iterdir())
    batches = (
        tf.data.Dataset.from_tensor_slices(paths)
        .map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(_BATCH)
        .prefetch(tf.data.AUTOTUNE)
    )
    Path(output, "results").mkdir()
    rows: list[dict[str, Any]] = []
    files = 0

    def write() -> None:
        nonlocal files
        pd.DataFrame(rows).to_parquet(f"{output}/results/{files:05}.parquet")
        files += 1
        rows.clear()

    for names, smalls, sizes in batches:
        for name, values, own in zip(names, network(smalls), sizes, strict=True):
            mask = tf.argmax(tf.image.resize(values, own), -1).numpy()
            counts = np.bincount(mask.ravel(), minlength=values.shape[-1])
            rows.append({"path": name.numpy().decode(), "mask": _encode(mask), "pixels": counts})
        if len(rows) >= min(_ROWS, len(paths) // 4):
            write()
    if rows:
        write()


def loop_over_windows(model: str, images: str, output: str) -> None:
    import onnxruntime
    import pandas as pd

    session = onnxruntime.InferenceSession(f"{model}/{ONNX}")
    taken, classes = session.get_inputs()[0], session.get_outputs()[0].shape[-1]
    side = taken.shape[1]
    distance = np.abs(np.arange(side) - (side - 1) / 2) / (side / 8)
    bell = np.exp(-(distance**2) / 2)
    weights = np.outer(bell, bell)[..., None]
    Path(output, "results").mkdir()
    for number, path in enumerate(sorted(Path(images).iterdir())):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        height, width = pixels.shape[:2]
        total, weight = np.zeros((height, width, classes)), np.zeros((height, width, 1))
        step = side * 3 // 4
        for top in [*range(0, height - side, step), height - side]:
            for left in [*range(0, width - side, step), width - side]:
                rows, columns = slice(top, top + side), slice(left, left + side)
                [logits] = session.run(None, {taken.name: pixels[None, rows, columns]})
                total[rows, columns] += weights * logits[0]
                weight[rows, columns] += weights
        mask = (total / weight).argmax(axis=-1)
        counts = np.bincount(mask.ravel(), minlength=classes)
        row = {"path": str(path), "mask": _encode(mask), "pixels": counts}
        pd.DataFrame([row]).to_parquet(f"{output}/results/{number:05}.parquet")


def _encode(mask: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def bare_onnx(model: str, *_: str) -> None:
    from segray.model.predictor import load_predictor

    bundle = open_bundle(model, [ONNX])
    predictor = load_predictor(bundle, "onnx", os.cpu_count() or 1)
    print(_time_forward(predictor.predict, bundle.architecture.height))


def bare_tensorflow(model: str, *_: str) -> None:
    network, size = _load_keras(model)
    print(_time_forward(lambda images: network(images).numpy(), size))


def _time_forward(predict: Any, size: int) -> float:
    """Images/s over ten seconds."""
    images = np.random.default_rng(0).integers(0, 256, (_BATCH, size, size, 3), dtype=np.uint8)
    predict(images)
    done, begun = 0, time.monotonic()
    while time.monotonic() - begun < 10:
        predict(images)
        done += _BATCH
    return done / (time.monotonic() - begun)


SIDES: dict[str, Callable[..., None]] = {
    "model": make_model,
    "raydata": ray_data,
    "tfdata": tf_data,
    "loop": loop_over_windows,
    "onnx": bare_onnx,
    "tf": bare_tensorflow,
}

if __name__ == "__main__":
    SIDES[sys.argv[1]](*sys.argv[2:])

"""The arithmetic of a step, over real processes that TensorFlow joins."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segray.data.labelled import read_pair
from segray.data.pairs import Pair
from segray.pixels.labels import Labels
from segray.storage.files import write_bytes
from tests.support import draw_picture, encode, free_port

# How many images the validation sets have.
VALIDATION = {"few": 7, "many": 103}

# Two workers have unequal shares already.
THREE = pytest.param(3, marks=pytest.mark.slow)

# One process of a run: it learns from its share of the same global batches, frozen and fine-tuned.
PROGRAM = """
import json, sys
import keras, numpy as np, tensorflow as tf
from segray.model.normalisation import BatchNormalization
from segray.training.data.batches import Batch
from segray.training.config import TrainConfig
from segray.training.step.losses import replica_loss, sum_replicas
from segray.training.step.network import TrainableNetwork
from segray.training.step.scoring import score_share

class Validation:
    # Examples, decoded beforehand.

    def __init__(self, file, name):
        with np.load(file) as arrays:
            self._images, self._masks = arrays[f"{name}_images"], arrays[f"{name}_masks"]

    def __len__(self):
        return len(self._images)

    def read(self, batches):
        for indices in batches:
            yield self._images[indices], self._masks[indices]

rank, workers, output, weights = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
strategy = tf.distribute.get_strategy()
if workers > 1:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
keras.utils.set_random_seed(0)
config = TrainConfig(
    image_size=32, detail=1.5, loss="ce+lovasz", label_smoothing=0.1, blur=1.0, noise=10.0
)
content = open(weights, "rb").read()
class_weights = np.array([1, 2, 3], np.float32)
sgd = lambda config: [keras.optimizers.SGD() for _ in range(3)]
# Alone its share is in three parts, and in two parts or one where there are others.
parts = {1: 3, 2: 2, 3: 1}[workers]
network = TrainableNetwork(strategy, config, content, class_weights, sgd, parts)
scores = {}
for name in ("few", "many"):
    share = score_share(network, Validation(sys.argv[5], name), rank, workers)
    counted, summed = network.sum_scores(*share)
    mine = int(share[0].sum())
    scores[name] = {"confusion": counted.tolist(), "loss": summed, "mine": mine}
start = network.model.get_weights()
augmentation = config.augmentation

def draw_share(rng):
    # Smooth pictures: the gradients of noise would magnify the rounding step by step.
    cells = rng.integers(0, 256, (23, 4, 4, 3), dtype=np.uint8)
    images = tf.image.resize(cells, (48, 48), "bilinear").numpy().astype(np.uint8)
    masks = (images.mean(axis=-1) // 86).astype(np.uint8)
    masks[:5][rng.random((5, 48, 48)) < 0.9] = 255  # so that workers have unequally many labels
    warps = augmentation.draw_warps(rng, 23, (32, 32), (48, 48))
    colours = augmentation.draw_colours(rng, 23)
    share = slice(rank * 23 // workers, (rank + 1) * 23 // workers)
    degradations = augmentation.draw_degradations(rng, 23)
    seeds = rng.integers(2**31, size=(23, 2), dtype=np.int32)
    columns = (images, masks, warps, colours, degradations, seeds)
    return Batch(*(column[share] for column in columns))

rng = np.random.default_rng(0)
losses = [
    network.train(draw_share(rng), (0.001, 0.0001)).numpy().tolist() for step in range(20)
]
end = network.model.get_weights()

# The optimizers of a run, which are not linear in the gradients.
keras.utils.set_random_seed(0)
other = TrainableNetwork(strategy, config, content, class_weights, parts=parts)
for step in range(2):
    other.train(draw_share(rng), (0.001, 0.0003))
names = [variable.path for variable in other.model.weights]

# The same logits, dealt out: the parts of a loss have to add up to that of all of them.
logits = rng.normal(0, 2, (23, 16, 16, 3)).astype(np.float32)
masks = rng.integers(0, 3, (23, 16, 16), dtype=np.uint8)
masks[:3], masks[3:5, 2:] = 255, 255
share = slice(rank * 23 // workers, (rank + 1) * 23 // workers)
sums = {}
for name in ("ce", "focal", "ce+dice", "ce+lovasz"):

    def part(logits, masks):
        value, _ = replica_loss(name, [logits], [masks], tf.constant([1.0, 2.0, 3.0]), 0.7, 0.1)
        return sum_replicas(value)

    @tf.function
    def run(logits, masks):
        return strategy.run(part, args=(logits, masks))

    sums[name] = float(run(tf.constant(logits[share]), tf.constant(masks[share])))
# Batch norm of values whose means differ from image to image, and so from worker to worker.
values = rng.normal(rng.normal(5, 2, (23, 1, 1, 4)), 1, (23, 8, 8, 4)).astype(np.float32)
slopes = rng.normal(size=values.shape).astype(np.float32)
with strategy.scope():
    layer = BatchNormalization(momentum=0.5)
    layer.build(values.shape)

def normalise(values, slopes):
    with tf.GradientTape() as tape:
        tape.watch(values)
        normalised = layer(values, training=True)
        loss = tf.reduce_sum(normalised * slopes)
    return normalised, tape.gradient(loss, values)

@tf.function
def run_layer(values, slopes):
    return strategy.run(normalise, args=(values, slopes))

normalised, gradient = run_layer(tf.constant(values[share]), tf.constant(slopes[share]))
normalisation = [normalised, gradient, layer.moving_mean, layer.moving_variance]
normalisation = [np.array(value).tolist() for value in normalisation]
confusion, loss = network.sum_scores(np.full((3, 3), 2**40 + rank), 0.5)
total = network.sum_over_replicas(7 if rank == 0 else 0)
np.savez(output, **{
    f"{part}/{i}": value
    for part, values in (("start", start), ("end", end), ("other", other.model.get_weights()))
    for i, value in enumerate(values)
})
print(json.dumps(
    {"losses": losses, "confusion": confusion.tolist(), "loss": loss, "total": total,
     "scores": scores, "sums": sums, "names": names, "normalisation": normalisation}
))
"""


def run_workers(
    folder: Path, workers: int, *files: str
) -> tuple[list[dict], list[dict[str, list[np.ndarray]]]]:
    """Start the processes together; what each printed, and the weights that it had: at the start,
    at the end of the steps of SGD, and after those of a run's own optimizers.
    """
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(workers)]
    processes = []
    for rank in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
        command = [sys.executable, "-c", PROGRAM, str(rank), str(workers)]
        processes.append(
            subprocess.Popen(
                [*command, str(folder / f"{workers}_{rank}.npz"), *files],
                env={**os.environ, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    printed, weights = [], []
    for rank, process in enumerate(processes):
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        printed.append(json.loads(output.splitlines()[-1]))
        with np.load(folder / f"{workers}_{rank}.npz") as values:
            parts = ("start", "end", "other")
            weights.append(
                {p: [values[n] for n in values.files if n.startswith(f"{p}/")] for p in parts}
            )
    return printed, weights


@pytest.fixture(scope="module")
def settled_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Encoder weights with running statistics of some images, as those of ImageNet have them.

    Without, its features all but vanish, and the decoder's normalisation magnifies their rounding.
    """
    import keras

    keras.utils.set_random_seed(7)
    encoder = keras.applications.MobileNetV2((32, 32, 3), include_top=False, weights=None)
    for layer in encoder.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    for seed in range(10):
        images = [
            draw_picture(32, 32, 24 * seed + i).astype(np.float32) / 127.5 - 1 for i in range(24)
        ]
        encoder(np.stack(images), training=True)
    path = tmp_path_factory.mktemp("encoder") / "settled.weights.h5"
    encoder.save_weights(path)
    return str(path)


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two validation sets whose sizes 2 and 3 do not divide, in a file.

    Images of mixed sizes, decoded as a run does; about every other has pixels that are ignored.
    """
    folder = tmp_path_factory.mktemp("validation")
    labels = Labels(("dark", "grey", "bright"), (0, 1, 2), (255,))
    rng = np.random.default_rng(5)
    images, masks = [], []
    for number in range(VALIDATION["many"]):
        height, width = rng.integers(20, 90, 2)
        picture = draw_picture(int(height), int(width), number)
        mask = (picture.mean(axis=-1) // 86).astype(np.uint8)
        if number % 2:
            mask[rng.random(mask.shape) < rng.random()] = 255
        pair = Pair(str(number), str(folder / f"{number}.png"), str(folder / f"{number}_mask.png"))
        write_bytes(pair.image, encode(picture, "PNG"))
        write_bytes(pair.mask, encode(mask, "PNG"))
        labelled = read_pair(pair, labels, 32)
        images.append(labelled.picture.pixels)
        small = Image.fromarray(labelled.class_ids).resize((32, 32), Image.Resampling.NEAREST)
        masks.append(np.asarray(small))
    arrays = {}
    for name, count in VALIDATION.items():
        arrays |= {f"{name}_images": images[:count], f"{name}_masks": masks[:count]}
    np.savez(folder / "validation.npz", **arrays)
    return folder / "validation.npz"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, settled_encoder: str, validation: Path):
    """What 1, 2 and 3 workers made of the same 20 steps on unequal shares of 23 images.

    Those of a number of workers are started when a test first asks for them.
    """
    folder = tmp_path_factory.mktemp("workers")
    files = (settled_encoder, str(validation))

    class Runs(dict):
        def __missing__(self, workers: int):
            self[workers] = run_workers(folder, workers, *files)
            return self[workers]

    return Runs()


@pytest.mark.parametrize("loss", ["ce", "focal", "ce+dice", "ce+lovasz"])
@pytest.mark.parametrize("workers", [2, THREE])
def test_the_parts_of_a_loss_add_up(runs, workers: int, loss: str) -> None:
    expected = runs[1][0][0]["sums"][loss]
    assert expected > 0.1
    for worker in runs[workers][0]:
        assert worker["sums"][loss] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("workers", [2, THREE])
def test_batch_norm_is_that_of_the_global_batch(runs, workers: int) -> None:
    """What comes out, the gradient, and the running statistics, which all workers have alike."""
    alone = [np.array(value) for value in runs[1][0][0]["normalisation"]]
    assert np.ptp(alone[0].mean(axis=(1, 2, 3))) > 1  # the images are not alike
    several = [worker["normalisation"] for worker in runs[workers][0]]
    for number in (0, 1):
        joined = np.concatenate([values[number] for values in several])
        np.testing.assert_allclose(joined, alone[number], rtol=1e-4, atol=1e-5)
    for values in several:
        np.testing.assert_allclose(values[2], alone[2], rtol=1e-5)
        np.testing.assert_allclose(values[3], alone[3], rtol=1e-5)


@pytest.mark.parametrize("name", VALIDATION)
@pytest.mark.parametrize("workers", [1, 2, THREE])
def test_validation_totals_do_not_depend_on_the_number_of_workers(
    runs, validation: Path, workers: int, name: str
) -> None:
    """Each labelled pixel is counted once and in the same cell, whoever has its image."""
    [alone] = runs[1][0]
    expected = np.array(alone["scores"][name]["confusion"], dtype=np.int64)
    with np.load(validation) as arrays:
        masks = arrays[f"{name}_masks"]
    assert expected.sum(axis=1).tolist() == [np.count_nonzero(masks == i) for i in range(3)]
    assert np.count_nonzero(expected.sum(axis=0)) == 3  # the network predicts each of the classes
    for worker in runs[workers][0]:
        np.testing.assert_array_equal(worker["scores"][name]["confusion"], expected)
        # The same float32 sum of each block of images, added up in another order in float64.
        assert worker["scores"][name]["loss"] == pytest.approx(
            alone["scores"][name]["loss"], rel=1e-14
        )
    shares = [worker["scores"][name]["mine"] for worker in runs[workers][0]]
    assert sum(shares) == expected.sum()
    assert min(shares) > 0 or name == "few"  # which is less than a block


@pytest.mark.parametrize("workers", [2, THREE])
def test_all_workers_hold_equal_weights(runs, workers: int) -> None:
    first, *others = runs[workers][1]
    for part, values in first.items():
        for other in others:
            for one, another in zip(values, other[part], strict=True):
                np.testing.assert_array_equal(one, another)


@pytest.mark.parametrize("workers", [2, THREE])
def test_weights_do_not_depend_on_the_number_of_workers(runs, workers: int) -> None:
    """After 20 steps of SGD on batches of 23, which 2 and 3 do not divide, statistics included."""
    alone, several = runs[1][1][0]["end"], runs[workers][1][0]["end"]
    # Each array against its largest value; offsets that began at 0 and are still below a
    # hundredth, against that.
    differences = [
        np.abs(one - other).max() / max(np.abs(one).max(), 0.01)
        for one, other in zip(alone, several, strict=True)
    ]
    print(f"23 images on 1 worker against {workers}: {max(differences):.2e}")
    assert len(differences) > 250
    assert max(differences) < 1e-3


# Some arrays go so short a way under SGD that float32 can hardly hold it; and where a gradient is
# all but 0, AdamW and Muon make as much of it as of the others.
@pytest.mark.parametrize(("part", "bound"), [("end", 0.3), ("other", 0.05)])
@pytest.mark.parametrize("workers", [2, THREE])
def test_changes_do_not_depend_on_the_number_of_workers(
    runs, workers: int, part: str, bound: float
) -> None:
    """How far each array has come from the start, and where to: what is hardly changed by so few
    steps has to be changed right as well.
    """
    start, alone = runs[1][1][0]["start"], runs[1][1][0][part]
    differences = {
        name: np.linalg.norm(one - other) / np.linalg.norm(one - before)
        for name, before, one, other in zip(
            runs[1][0][0]["names"], start, alone, runs[workers][1][0][part], strict=True
        )
        if (one != before).any()
    }
    # The encoder's kernels, and all of the decoder.
    assert len(differences) > 70
    print(f"{workers} workers, {part}: {max(differences.values()):.1e} of the way")
    assert max(differences.values()) < bound


@pytest.mark.parametrize("workers", [2, THREE])
def test_losses_do_not_depend_on_the_number_of_workers(runs, workers: int) -> None:
    """The same summed loss and number of labelled pixels, step after step."""
    [alone] = runs[1][0]
    for worker in runs[workers][0]:
        np.testing.assert_allclose(worker["losses"], alone["losses"], rtol=1e-3)
    assert alone["losses"][-1] < alone["losses"][0]


@pytest.mark.parametrize("workers", [1, 2, THREE])
def test_counts_are_summed_over_the_workers(runs, workers: int) -> None:
    """Exactly, also where a float32 would have lost the last digits."""
    cell = workers * 2**40 + sum(range(workers))
    for worker in runs[workers][0]:
        assert worker["confusion"] == [[cell] * 3] * 3
        assert worker["loss"] == 0.5 * workers
        assert worker["total"] == 7

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from segray.errors import InputError
from segray.storage.files import child_names, read_bytes, write_bytes
from segray.storage.uri import join_uri
from segray.training.control.checkpoint import Checkpoints, Progress

if TYPE_CHECKING:
    import keras


@dataclass
class Network:
    """What a checkpoint keeps of a network, and much smaller than a U-Net."""

    model: "keras.Model"
    optimizers: "list[keras.Optimizer]"

    def learn(self, seed: int) -> None:
        """A step of each optimizer along random gradients."""
        rng = np.random.default_rng(seed)
        for optimizer, variables in zip(self.optimizers, self._parts(), strict=True):
            optimizer.apply([rng.normal(size=v.shape) for v in variables], variables)
        for variable in self.model.non_trainable_variables:
            variable.assign(rng.uniform(size=variable.shape))

    def _parts(self) -> "list[list[keras.Variable]]":
        variables = self.model.trainable_variables
        return [variables[:2], variables[2:]]

    def numbers(self) -> list[np.ndarray]:
        variables = [*self.model.variables, *(v for o in self.optimizers for v in o.variables)]
        return [np.array(variable) for variable in variables]


def make_network(seed: int = 0, width: int = 4, layers: int = 2) -> Network:
    import keras

    keras.utils.set_random_seed(seed)
    hidden = [
        layer
        for _ in range(layers)
        for layer in (keras.layers.Dense(width), keras.layers.BatchNormalization())
    ]
    model = keras.Sequential([keras.Input((width,)), *hidden])
    network = Network(model, [keras.optimizers.AdamW(weight_decay=0.01) for _ in range(2)])
    for optimizer, variables in zip(network.optimizers, network._parts(), strict=True):
        optimizer.build(variables)
    return network


def assert_equal(network: Network, numbers: list[np.ndarray]) -> None:
    assert len(numbers) > 20
    for one, other in zip(network.numbers(), numbers, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def progress_of(*scores: float | None) -> Progress:
    progress = Progress()
    for epoch, score in enumerate(scores, start=1):
        progress.add({"epoch": epoch, "mean_iou": score, "loss": None})
    return progress


def save_all(uri: str, network: Any, *scores: float | None) -> Progress:
    """A checkpoint after each epoch, as a run writes them."""
    for epoch in range(1, len(scores) + 1):
        network.learn(epoch)
        Checkpoints(uri).save(network, progress_of(*scores[:epoch]))
    return progress_of(*scores)


@pytest.fixture(params=["local", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that is not there yet."""
    if request.param == "local":
        return str(tmp_path / "run" / "checkpoints")
    make_bucket: Callable[[str], str] = request.getfixturevalue("s3")
    return f"{make_bucket('checkpoints')}/{tmp_path.name}/checkpoints"


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


def test_a_checkpoint_restores_every_number(uri: str) -> None:
    """The optimizers' as well: the next step is the one that it would have been."""
    network, restored = make_network(seed=0), make_network(seed=1)
    for step in range(3):
        network.learn(step)
        network.optimizers[1].learning_rate.assign(0.1 / (step + 3))
    progress = progress_of(0.25, 0.5, 1 / 3)
    Checkpoints(uri).save(network, progress)
    saved = network.numbers()
    network.learn(99)  # goes on, and does not change what was saved

    assert Checkpoints(uri).load(3, restored) == progress
    assert_equal(restored, saved)
    restored.learn(99)
    assert_equal(restored, network.numbers())


def test_the_weights_alone_can_be_taken(uri: str) -> None:
    network, other = make_network(seed=0), make_network(seed=1)
    network.learn(0)
    Checkpoints(uri).save(network, progress_of(0.5))
    Checkpoints(uri).load_model(1, other.model)
    for one, another in zip(other.model.variables, network.model.variables, strict=True):
        np.testing.assert_array_equal(one, another)


def test_there_is_none_before_the_first(uri: str) -> None:
    checkpoints = Checkpoints(uri)
    assert checkpoints.epochs() == []
    assert checkpoints.newest() == 0
    with pytest.raises(InputError, match=r"epoch_0001\.npz"):
        checkpoints.load(1, make_network())


def test_a_run_does_not_change_its_precision(tmp_path: Path) -> None:
    """`auto` may mean another one on the machine on which it goes on."""
    import keras

    uri, before = str(tmp_path), keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        network = make_network()
    finally:
        keras.config.set_dtype_policy(before)
    Checkpoints(uri).save(network, progress_of(0.5))
    here = make_network()
    numbers = here.numbers()
    with pytest.raises(InputError, match=r"in mixed_bfloat16, and .* go on in float32: run on"):
        Checkpoints(uri).load(1, here)
    assert_equal(here, numbers)
    assert Checkpoints(uri).load(1, network) == progress_of(0.5)


def test_what_a_killed_process_has_left_is_removed(network: Network, tmp_path: Path) -> None:
    left = tmp_path / ".partial-0123456789abcdef"
    left.write_bytes(b"half a checkpoint")
    (tmp_path / "notes.txt").write_text("of someone else")
    Checkpoints(str(tmp_path)).save(network, progress_of(0.5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0001.npz", "notes.txt"]


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([0.1], [1]),
        ([0.1, 0.2, 0.3, 0.4], [3, 4]),
        ([0.1, 0.9, 0.3, 0.4, 0.5], [2, 4, 5]),
        ([0.1, 0.9, 0.3, 0.4, 0.5, 0.95], [2, 5, 6]),
        ([0.1, 0.9, 0.3, 0.4, 0.5, 0.95, 0.6], [6, 7]),
    ],
)
def test_the_last_two_are_kept_and_the_best(
    network: Network, tmp_path: Path, scores: list[float], kept: list[int]
) -> None:
    """Of each of the last two the best: the run may have to go on from either of them."""
    save_all(str(tmp_path), network, *scores)
    assert Checkpoints(str(tmp_path)).epochs() == kept
    assert child_names(str(tmp_path)) == [f"epoch_{epoch:04d}.npz" for epoch in kept]


def test_old_ones_are_deleted_in_s3_too(network: Network, uri: str) -> None:
    save_all(uri, network, 0.9, 0.1, 0.2, 0.3)
    assert child_names(uri) == [f"epoch_{epoch:04d}.npz" for epoch in (1, 3, 4)]


@pytest.mark.parametrize("left", [0, 1, 100, 0.5, -1], ids=lambda left: f"{left} left")
def test_after_a_truncated_one_the_one_before_counts(
    network: Network, tmp_path: Path, left: float
) -> None:
    file = tmp_path / "epoch_0003.npz"
    save_all(str(tmp_path), network, 0.1, 0.2, 0.3)
    content = file.read_bytes()
    file.write_bytes(content[: int(left * len(content)) if left == 0.5 else int(left)])
    checkpoints = Checkpoints(str(tmp_path))
    assert checkpoints.newest() == 2
    with pytest.raises(InputError, match=r"epoch_0003\.npz is damaged: delete it and run again"):
        checkpoints.load(3, make_network())


def test_a_changed_byte_is_noticed(network: Network, uri: str) -> None:
    """In the numbers, in their names, and in the directory at the archive's end."""
    save_all(uri, network, 0.1, 0.2)
    intact = read_bytes(join_uri(uri, "epoch_0002.npz"))
    assert Checkpoints(uri).newest() == 2
    numbers = intact.index(np.asarray(network.model.variables[0]).tobytes())
    name, entry = intact.index(b"model/0"), intact.index(b"PK\x01\x02")
    # Of the first entry: its mark, the version, the flags, the compression, how long its name is.
    for place in (numbers, name, *(entry + i for i in (0, 6, 8, 10, 28))):
        spoilt = bytearray(intact)
        spoilt[place] ^= 0x41
        write_bytes(join_uri(uri, "epoch_0002.npz"), bytes(spoilt))
        assert Checkpoints(uri).newest() == 1


def test_a_run_that_goes_on_from_the_one_before_still_has_its_best(
    network: Network, tmp_path: Path
) -> None:
    """The last epoch was the best until its file was damaged; then it is again the first."""
    save_all(str(tmp_path), network, 0.8, 0.1, 0.2, 0.3, 0.9)
    (tmp_path / "epoch_0005.npz").write_bytes(b"")
    checkpoints = Checkpoints(str(tmp_path))
    progress = checkpoints.load(checkpoints.newest(), network)
    assert (progress.epoch, progress.best_epoch) == (4, 1)
    checkpoints.load_model(progress.best_epoch, network.model)


@pytest.mark.parametrize("content", [b"damaged", None], ids=["damaged", "gone"])
def test_a_lost_best_one_gives_way_to_the_best_that_is_left(
    network: Network, tmp_path: Path, content: bytes | None
) -> None:
    """For good: an epoch that is better than the new best is the best, and kept."""
    progress = save_all(str(tmp_path), network, 0.1, 0.9, 0.2, 0.5, 0.4)
    checkpoints = Checkpoints(str(tmp_path))
    assert checkpoints.epochs() == [2, 4, 5]
    assert checkpoints.best(progress) == progress.best_epoch == 2
    if content is None:
        (tmp_path / "epoch_0002.npz").unlink()
    else:
        (tmp_path / "epoch_0002.npz").write_bytes(content)
    progress.best_epoch = checkpoints.best(progress)
    assert progress.best_epoch == 4
    for score, kept in ((0.3, [4, 5, 6]), (0.6, [4, 6, 7]), (0.1, [7, 8])):
        progress.add({"epoch": progress.epoch + 1, "mean_iou": score})
        checkpoints.save(network, progress)
        assert checkpoints.epochs() == kept
        assert checkpoints.load(progress.epoch, network) == progress
    assert checkpoints.best(progress) == progress.best_epoch == 7


def test_there_is_no_best_one_where_none_is_whole(network: Network, tmp_path: Path) -> None:
    progress = save_all(str(tmp_path), network, 0.1, 0.2)
    for file in tmp_path.iterdir():
        file.write_bytes(b"")
    assert Checkpoints(str(tmp_path)).best(progress) == 0


def test_what_is_beside_the_checkpoints_is_left_alone(network: Network, uri: str) -> None:
    """Ray Train's own files, and what a user put there."""
    strange = [
        *("epoch_9.npz", "epoch_0009.npz.tmp", "old_epoch_0009.npz", "epoch_0009.txt"),
        *(".hidden-epoch_0009.npz", "snapshot.json", "epoch_0009/epoch_0009.npz"),
    ]
    for name in strange:
        write_bytes(join_uri(uri, name), b"no checkpoint")
    assert Checkpoints(uri).newest() == 0
    save_all(uri, network, 0.1, 0.2, 0.3, 0.4)
    assert Checkpoints(uri).epochs() == [3, 4]
    assert Checkpoints(uri).newest() == 4
    for name in strange:
        assert read_bytes(join_uri(uri, name)) == b"no checkpoint"


def test_a_file_of_numbers_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "epoch_0001.npz", numbers=np.arange(3))
    np.savez(tmp_path / "epoch_0002.npz", **{"model/0": np.eye(4)})
    with (tmp_path / "epoch_0003.npz").open("wb") as file:
        np.save(file, np.arange(3))
    for epoch in (1, 2, 3):
        with pytest.raises(InputError, match=rf"epoch_000{epoch}\.npz is "):
            Checkpoints(str(tmp_path)).load(epoch, make_network())


@pytest.mark.parametrize(
    "other",
    [{"width": 5}, {"layers": 3}, {"layers": 1}],
    ids=["wider", "deeper", "shallower"],
)
def test_a_checkpoint_of_another_network_is_refused(
    network: Network, tmp_path: Path, other: dict[str, int]
) -> None:
    """And the network is as it was before."""
    save_all(str(tmp_path), network, 0.5)
    network_of_another_kind = make_network(seed=3, **other)
    before = [np.array(v) for v in network_of_another_kind.model.variables]
    with pytest.raises(InputError, match=r"epoch_0001\.npz is not of this network: give another"):
        Checkpoints(str(tmp_path)).load(1, network_of_another_kind)
    for one, another in zip(network_of_another_kind.model.variables, before, strict=True):
        np.testing.assert_array_equal(one, another)


def test_an_unreadable_checkpoint_is_no_reason_to_begin_anew(
    network: Network, users_folder: Path
) -> None:
    save_all(str(users_folder), network, 0.1, 0.2)
    (users_folder / "epoch_0002.npz").chmod(0o000)
    with pytest.raises(InputError, match=r"cannot read .*epoch_0002\.npz.*permissions"):
        Checkpoints(str(users_folder)).newest()


def test_a_folder_that_cannot_be_written_is_named(network: Network, users_folder: Path) -> None:
    users_folder.chmod(0o500)
    with pytest.raises(InputError, match=rf"cannot write {users_folder}/epoch_0001\.npz"):
        Checkpoints(str(users_folder)).save(network, progress_of(0.5))


def test_progress_knows_how_far_it_is_and_its_best_epoch() -> None:
    progress = Progress()
    assert (progress.epoch, progress.best_epoch) == (0, 0)
    best = []
    for epoch, score in enumerate([0.3, 0.5, 0.5, 0.2, 0.6], start=1):
        progress.add({"epoch": epoch, "mean_iou": score})
        best.append(progress.best_epoch)
    assert progress.epoch == 5
    assert best == [1, 2, 2, 2, 5]  # of equal ones the first
    json.dumps(progress.history)


@pytest.mark.parametrize(
    ("scores", "patience", "over"),
    [
        ([], 0, False),
        ([], 1, False),
        ([0.5, 0.4, 0.3, 0.2], 0, False),
        ([0.5, 0.4], 2, False),
        ([0.5, 0.4, 0.5], 2, True),
        ([0.5, 0.4, 0.6], 2, False),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 0, True),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 9, True),
    ],
)
def test_a_run_is_over_after_all_epochs_or_when_nothing_gets_better(
    scores: list[float], patience: int, over: bool
) -> None:
    assert progress_of(*scores).is_over(5, patience) is over

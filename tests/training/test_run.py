"""Training runs on a real Ray, from files to a bundle."""

import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import segray
from segray.errors import InputError
from segray.storage.manifest import read_manifest
from segray.storage.pairs import find_pairs
from segray.storage.uri import child_names, join_uri, read_bytes
from segray.training.config import RECIPES, TrainConfig
from segray.training.prepare import prepare_training
from tests.support import free_port, write_shapes
from tests.training.mlflow_server import MlflowServer

pytestmark = pytest.mark.usefixtures("ray_session")


#: What the contract names, in a run's folder.
OUTPUT = (
    *("checkpoints", "config.json", "curves.png", "evaluation", "metrics.jsonl"),
    *("model", "pairs.csv", "previews", "tensorboard"),
)


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


def run(config: TrainConfig, lines: list[str] | None = None):
    """What jobs/train.py does, and the lines that it would print."""
    from segray.training.run import train

    lines = [] if lines is None else lines
    summary = train(prepare_training(config, lines.append), lines.append)
    return summary, lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_session: None, encoder_file: str):
    """A run with two workers; each writes down the weights that it ends with."""
    from segray.training import fit as fit_module

    folder = tmp_path_factory.mktemp("run")
    write_shapes(str(folder), 30)

    def train_and_tell(loop_settings: dict) -> None:
        import ray.train

        from segray.training.loop import TrainingLoop
        from segray.training.worker import train_worker

        run = TrainingLoop.run

        def run_and_save(loop: TrainingLoop) -> str:
            problem = run(loop)
            file = folder / f"rank{ray.train.get_context().get_world_rank()}.npz"
            np.savez(file, *loop.network.model.get_weights())
            return problem

        TrainingLoop.run = run_and_save  # type: ignore[method-assign]
        train_worker(loop_settings)

    config = settings(str(folder), str(folder / "out"), encoder_file, workers=2, epochs=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "train_worker", train_and_tell)
        summary, lines = run(config)
    return folder, config, summary, lines


def test_both_workers_end_with_equal_weights(finished) -> None:
    folder, *_ = finished
    with np.load(folder / "rank0.npz") as one, np.load(folder / "rank1.npz") as other:
        assert len(one.files) == len(other.files) > 250
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])


def test_output_holds_what_the_contract_names(finished) -> None:
    folder, *_ = finished
    output = str(folder / "out")
    assert set(child_names(output)) == set(OUTPUT)
    assert set(child_names(join_uri(output, "checkpoints"))) >= {
        "epoch_0002.npz",
        "epoch_0003.npz",
    }
    assert "metrics.json" in child_names(join_uri(output, "evaluation"))
    assert child_names(join_uri(output, "model")) == [
        "model.json",
        "model.onnx",
        "model.weights.h5",
    ]
    assert child_names(join_uri(output, "previews")) == [f"epoch_000{i}.png" for i in (1, 2, 3)]
    assert child_names(join_uri(output, "tensorboard")) == ["events.out.tfevents.segray"]
    for picture in ("curves.png", "previews/epoch_0003.png"):
        with Image.open(io.BytesIO(read_bytes(join_uri(output, picture)))) as image:
            assert image.width > 96


def test_metrics_have_a_line_per_epoch(finished) -> None:
    folder, *_ = finished
    records = [json.loads(line) for line in (folder / "out/metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    for record in records:
        assert 0 <= record["accuracy"] <= 1
        assert record["mean_iou"] == pytest.approx(
            np.mean([record["iou_box"], record["iou_ground"]]), abs=1e-5
        )
        assert record["images_per_second"] > 0
    assert records[-1]["train_loss"] < records[0]["train_loss"]


def test_terminal_shows_each_epoch(finished) -> None:
    *_, lines = finished
    epochs = [line for line in lines if line.startswith("epoch") and "mIoU" in line]
    assert len(epochs) == 3
    assert all("images/s" in line and "min left" in line for line in epochs)


def test_bundle_is_of_the_best_epoch_and_tells_where_it_comes_from(finished) -> None:
    folder, _, summary, _ = finished
    document = json.loads((folder / "out/model/model.json").read_text())
    records = [json.loads(line) for line in (folder / "out/metrics.jsonl").read_text().splitlines()]
    assert (
        document["metrics"] == max(records, key=lambda record: record["mean_iou"]) == summary.best
    )
    assert document["configuration"]["workers"] == 2
    assert document["data_fingerprint"]
    assert document["labels"]["names"] == ["box", "ground"]


def test_the_model_segments(finished) -> None:
    folder, *_ = finished
    segmenter = segray.load(str(folder / "out/model"))
    image = next((folder / "images").iterdir())
    with Image.open(image) as opened:
        assert segmenter.segment(image).shape == (opened.height, opened.width)


def test_a_finished_run_is_not_trained_again(finished) -> None:
    folder, config, summary, _ = finished
    before = (folder / "out/model/model.json").read_bytes()
    again, lines = run(config)
    assert again == summary
    assert (folder / "out/model/model.json").read_bytes() == before
    assert not [line for line in lines if line.startswith("epoch")]


def test_other_settings_on_the_same_output_are_refused(finished) -> None:
    _, config, *_ = finished
    with pytest.raises(InputError, match="a run with --seed 0, and this one has 5"):
        run(dataclasses.replace(config, seed=5))


def test_two_workers_from_s3_to_s3_with_two_images(
    s3: Callable[[str], str], encoder_file: str
) -> None:
    """Fewer images than workers: none of them waits for ever."""
    bucket = s3("train")
    write_shapes(f"{bucket}/data", 2)
    config = settings(f"{bucket}/data", f"{bucket}/runs/one", encoder_file, epochs=1, workers=2)
    summary, _ = run(config)
    assert summary.output == f"{bucket}/runs/one"
    assert child_names(f"{bucket}/runs/one") == list(OUTPUT)
    assert segray.load(f"{bucket}/runs/one/model").labels.names == ("box", "ground")


def test_tensorboard_gets_every_number(finished) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorflow.data import TFRecordDataset

    folder, *_ = finished
    file = str(folder / "out/tensorboard/events.out.tfevents.segray")
    events = [Event.FromString(record.numpy()) for record in TFRecordDataset(file)]
    steps = [event.step for event in events for v in event.summary.value if v.tag == "mean_iou"]
    assert steps == [1, 2, 3]


def test_an_interrupted_run_goes_on_after_its_last_epoch(
    tmp_path: Path, encoder_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends where one that was never interrupted ends."""
    from segray.training.loop import TrainingLoop

    write_shapes(str(tmp_path), 20)
    config = settings(str(tmp_path), str(tmp_path / "out"), encoder_file, epochs=4, workers=0)
    write_preview = TrainingLoop._write_preview

    def fall(loop: TrainingLoop, epoch: int) -> None:
        """Break down in the second epoch, its checkpoint written and its records not."""
        if epoch == 2:
            raise KeyboardInterrupt
        write_preview(loop, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_write_preview", fall)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    assert not (tmp_path / "out" / "model").exists()

    summary, lines = run(config)
    assert summary.epochs == 4
    done = [line.split()[1] for line in lines if line.startswith("epoch") and "mIoU" in line]
    assert done == ["3/4", "4/4"]
    names = child_names(str(tmp_path / "out" / "previews"))
    assert names == [f"epoch_000{i}.png" for i in (1, 2, 3, 4)]
    run(dataclasses.replace(config, output=str(tmp_path / "straight")))
    assert scores(tmp_path / "out") == scores(tmp_path / "straight")
    assert weights(tmp_path / "out") == weights(tmp_path / "straight")


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


def test_a_worker_that_dies_is_replaced_without_a_person(
    finished, tmp_path: Path, mlflow_server: MlflowServer
) -> None:
    """Killed in the second epoch, the run ends as if nothing had been, on a tracking server too."""
    from segray.training import fit as fit_module

    folder, config, *_ = finished

    def train_and_die(loop_settings: dict) -> None:
        import ray.train

        from segray.training.loop import TrainingLoop
        from segray.training.worker import train_worker

        score = TrainingLoop._score

        def die_once(loop: TrainingLoop, epoch: int) -> dict:
            rank, mark = ray.train.get_context().get_world_rank(), tmp_path / "killed"
            if rank == 1 and epoch == 2 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return score(loop, epoch)

        TrainingLoop._score = die_once  # type: ignore[method-assign]
        train_worker(loop_settings)

    again = dataclasses.replace(config, output=str(tmp_path / "out"), mlflow=mlflow_server.url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "train_worker", train_and_die)
        summary, lines = run(again)
    assert (tmp_path / "killed").exists()
    assert "going on after epoch 1, the last one saved" in lines
    assert summary.epochs == 3
    assert scores(tmp_path / "out") == scores(folder / "out")
    assert weights(tmp_path / "out") == weights(folder / "out")
    tracked = mlflow_server.losses_of(tmp_path / "out")
    assert tracked == [(record["epoch"], record["loss"]) for record in scores(tmp_path / "out")]
    assert mlflow_server.run_of(tmp_path / "out")["info"]["status"] == "FINISHED"


def test_a_worker_that_does_not_come_is_named_and_replaced(
    finished, tmp_path: Path, encoder_file: str
) -> None:
    """One that hangs holds up the others only until --stall-timeout."""
    from segray.training import fit as fit_module

    _, config, *_ = finished

    def train_and_hang(loop_settings: dict) -> None:
        import ray.train

        from segray.training.loop import TrainingLoop
        from segray.training.worker import train_worker

        score = TrainingLoop._score

        def hang_once(loop: TrainingLoop, epoch: int) -> dict:
            rank, mark = ray.train.get_context().get_world_rank(), tmp_path / "hung"
            if rank == 1 and epoch == 2 and not mark.exists():
                mark.write_text(str(os.getpid()))
                time.sleep(3600)
            return score(loop, epoch)

        TrainingLoop._score = hang_once  # type: ignore[method-assign]
        train_worker(loop_settings)

    again = dataclasses.replace(config, output=str(tmp_path / "out"), stall_timeout=30.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "train_worker", train_and_hang)
        summary, lines = run(again)
    process = (tmp_path / "hung").read_text()
    [told] = [line for line in lines if "did not come to" in line]
    assert f"worker 1 (process {process} on" in told
    assert "the scores of epoch 2 within 30 s" in told
    assert summary.epochs == 3


def test_training_without_workers_writes_the_same_files(finished, tmp_path: Path) -> None:
    """And the same scores but for the last digits, which the order of sums decides."""
    folder, config, *_ = finished
    summary, lines = run(dataclasses.replace(config, output=str(tmp_path / "out"), workers=0))
    assert child_names(str(tmp_path / "out")) == list(OUTPUT)
    for part in ("model", "previews", "tensorboard", "evaluation"):
        assert child_names(str(tmp_path / "out" / part)) == child_names(str(folder / "out" / part))
    assert not [line for line in lines if "worker" in line]
    assert summary.epochs == 3
    assert scores(tmp_path / "out")[0]["train_loss"] == pytest.approx(
        scores(folder / "out")[0]["train_loss"], rel=1e-3
    )


def test_examples_decoded_anew_each_epoch_give_the_same_model(
    tmp_path: Path, encoder_file: str
) -> None:
    """With workers that hold all of the CPUs, as they do by default."""
    write_shapes(str(tmp_path), 12)
    models = []
    for cache in ("memory", "none"):
        output = str(tmp_path / cache)
        config = settings(str(tmp_path), output, encoder_file, epochs=1, cache=cache)
        _, lines = run(config)
        assert any(("decoded anew" in line) == (cache == "none") for line in lines if "GB" in line)
        models.append(weights(Path(output)))
    assert models[0] == models[1]


def test_the_tutorial_can_be_run(tmp_path: Path, encoder_file: str) -> None:
    """Its settings: pixels in [0, 1], a frozen encoder, a constant rate."""
    write_shapes(str(tmp_path), 12)
    recipe = {**RECIPES["tutorial"], "batch_size": 8, "epochs": 1, "workers": 0}
    nobody = f"http://127.0.0.1:{free_port()}"
    summary, lines = run(
        settings(str(tmp_path), str(tmp_path / "out"), encoder_file, mlflow=nobody, **recipe)
    )
    assert summary.epochs == 1
    # That the tracking server does not answer is a line, and no more.
    assert len([line for line in lines if f"{nobody} does not answer" in line]) == 1
    document = json.loads((tmp_path / "out/model/model.json").read_text())
    assert document["architecture"]["input_range"] == [0, 1]
    segmenter = segray.load(str(tmp_path / "out/model"))
    assert segmenter.segment(tmp_path / "images" / "shape_0.jpg").max() <= 1


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, ray_session: None, encoder_file: str):
    """A run that learns nothing, and so ends two epochs after its best one."""
    folder = tmp_path_factory.mktemp("stopped")
    write_shapes(str(folder), 12)
    config = settings(
        *(str(folder), str(folder / "out"), encoder_file),
        **{"workers": 0, "epochs": 9, "patience": 2, "learning_rate": 1e-12, "warmup": 0.0},
        encoder_learning_rate=0.0,
        batch_norm_momentum=0.999999,
    )
    summary, _ = run(config)
    return folder, config, summary


def test_training_stops_where_nothing_gets_better(stopped) -> None:
    _, _, summary = stopped
    assert summary.epochs < 9
    assert summary.best["epoch"] == summary.epochs - 2


def test_a_run_outlives_the_loss_of_its_best_checkpoint(stopped, tmp_path: Path) -> None:
    """The bundle is of the best epoch of those that are left."""
    folder, config, summary = stopped
    shutil.copytree(folder / "out", tmp_path / "out")
    best = summary.best["epoch"]
    (tmp_path / "out" / "checkpoints" / f"epoch_{best:04d}.npz").write_bytes(b"damaged")
    for name in ("model", "evaluation"):
        shutil.rmtree(tmp_path / "out" / name)
    again, lines = run(dataclasses.replace(config, output=str(tmp_path / "out")))
    [told] = [line for line in lines if "damaged or gone" in line]
    assert told.startswith(f"the checkpoint of the best epoch, {best}, is damaged or gone")
    assert f"the best of those that are left is epoch {again.best['epoch']}" in told
    assert again.best["epoch"] == again.epochs - 2 > best
    assert segray.load(str(tmp_path / "out" / "model")).labels.names == ("box", "ground")


def test_files_that_are_not_as_they_were_are_named(stopped, tmp_path: Path) -> None:
    """A run goes on only with the data that it was started on, wherever that lies."""
    before, config, summary = stopped
    folder = shutil.copytree(before, tmp_path / "elsewhere")
    moved = dataclasses.replace(
        config, images=f"{folder}/images", masks=f"{folder}/masks", output=f"{folder}/out"
    )
    spoilt = folder / "images" / "shape_3.jpg"
    content = spoilt.read_bytes()
    spoilt.write_bytes(b"no image")
    with pytest.raises(InputError) as one:
        run(moved)
    assert re.fullmatch(
        rf"{folder}/out holds a run on other data \(1 pair\(s\) gone or unreadable, the first: "
        rf"{spoilt}: not an image [^\n]*\): put the data back as it was, or give another "
        r"--output to train anew",
        str(one.value),
    )

    for name in ("shape_2", "shape_5"):
        (folder / "images" / f"{name}.jpg").unlink()
    (folder / "masks" / "shape_2.png").unlink()
    for suffix, kind in (("jpg", "images"), ("png", "masks")):
        shutil.copy(folder / kind / f"shape_1.{suffix}", folder / kind / f"shape_7.{suffix}")
        shutil.copy(folder / kind / f"shape_1.{suffix}", folder / kind / f"added.{suffix}")
    with pytest.raises(InputError) as several:
        run(moved)
    assert "3 pair(s) gone or unreadable, the first: " in str(several.value)
    assert f"{before}/images/shape_2.jpg" in str(several.value)  # where it lay
    assert f"1 pair(s) changed, the first: {folder}/images/shape_7.jpg" in str(several.value)
    assert f"1 pair(s) new, the first: {folder}/images/added.jpg" in str(several.value)

    (folder / "out" / "pairs.csv").unlink()
    with pytest.raises(InputError, match=r"on other data \(pairs.csv, which says on what, is gone"):
        run(moved)

    shutil.copytree(before / "images", folder / "images", dirs_exist_ok=True)
    shutil.copytree(before / "masks", folder / "masks", dirs_exist_ok=True)
    for file in (folder / "images" / "added.jpg", folder / "masks" / "added.png"):
        file.unlink()
    assert spoilt.read_bytes() == content
    again, lines = run(moved)
    assert again == dataclasses.replace(summary, output=f"{folder}/out")
    assert "this run is trained to its end" in lines


def test_the_pairs_of_a_run_are_a_manifest(stopped) -> None:
    """Of what was learned from, and of what was not."""
    folder, *_ = stopped
    parts = read_manifest(str(folder / "out" / "pairs.csv"))
    assert (len(parts["train"]), len(parts["validation"])) == (10, 2)
    everything = find_pairs(str(folder / "images"), str(folder / "masks")).pairs
    listed = {(pair.image, pair.mask) for part in parts.values() for pair in part}
    assert listed == {(pair.image, pair.mask) for pair in everything}


def test_unreadable_and_lone_files_are_listed_and_left_out(
    tmp_path: Path, encoder_file: str
) -> None:
    write_shapes(str(tmp_path), 12)
    (tmp_path / "images" / "shape_3.jpg").write_bytes(b"no image")
    (tmp_path / "masks" / "shape_4.png").unlink()
    config = settings(str(tmp_path), str(tmp_path / "out"), encoder_file, workers=0, epochs=1)
    with pytest.raises(InputError, match=r"2 of 12 pairs \(16\.67%\) cannot be used"):
        run(config)
    skipped = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["image"]).name for line in skipped] == [
        "shape_3.jpg",
        "shape_4.jpg",
    ]
    summary, lines = run(dataclasses.replace(config, max_error_rate=0.2))
    assert summary.epochs == 1
    assert "decoded 11 pairs" in "\n".join(lines)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, encoder_file: str) -> None:
    write_shapes(str(tmp_path), 10)
    config = settings(str(tmp_path), str(tmp_path / "out"), encoder_file, learning_rate=1e30)
    lines: list[str] = []
    with pytest.raises(InputError, match="no number any more in epoch 1: lower --learning-rate"):
        run(config, lines)
    # The error says it, and no line before it.
    assert not [line for line in lines if "no number" in line]


@pytest.mark.parametrize("content", ["", "[]", '{"configuration": null, "data_fingerprint": "x"}'])
def test_a_damaged_record_of_a_run_is_refused(tmp_path: Path, content: str) -> None:
    write_shapes(str(tmp_path), 4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json is no record of a training run"):
        prepare_training(settings(str(tmp_path), str(tmp_path / "out"), "none"), print)


def test_an_output_with_something_else_is_refused(tmp_path: Path) -> None:
    write_shapes(str(tmp_path), 4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds something that is no training run \(thesis\.tex"):
        prepare_training(settings(str(tmp_path), str(tmp_path / "out"), "none"), print)

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
from segray.storage.files import child_names, read_bytes
from segray.storage.lock import hold_lock
from segray.storage.manifest import read_manifest
from segray.storage.pairs import find_pairs
from segray.storage.uri import join_uri
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


def test_the_model_is_the_best_epoch_calibrated(finished) -> None:
    folder, *_ = finished
    document = json.loads((folder / "out/model/model.json").read_text())
    temperature, metrics = document["temperature"], document["metrics"]
    assert 0.25 <= temperature <= 4
    assert temperature != 1
    with h5py.File(folder / "out/model/model.weights.h5") as file:
        kernel = file["layers/conv2d_transpose_4/vars/0"][()]
    with np.load(folder / f"out/checkpoints/epoch_{metrics['epoch']:04}.npz") as arrays:
        kernels = [arrays[name] for name in arrays.files if arrays[name].shape == kernel.shape]
    assert any(np.allclose(other / temperature, kernel, rtol=1e-5) for other in kernels)
    scores = json.loads((folder / "out/evaluation/metrics.json").read_text())["model_size"]
    assert scores["mean_iou"] == pytest.approx(metrics["mean_iou"], abs=1e-3)
    assert scores["loss"] < metrics["loss"]


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


def test_the_document_names_every_file_and_field(finished) -> None:
    folder, *_ = finished
    text = (Path(__file__).parents[2] / "docs" / "outputs.md").read_text()
    section = text.partition("# What training writes")[2].partition("\n# ")[0]
    record = json.loads((folder / "out" / "metrics.jsonl").read_text().splitlines()[0])
    fields = {re.sub("^iou_.*", "iou_<class>", name) for name in record}
    fields |= json.loads((folder / "out" / "model" / "model.json").read_text()).keys()
    with np.load(folder / "out" / "checkpoints" / "epoch_0003.npz") as arrays:
        fields |= json.loads(arrays["progress"].tobytes()).keys()
    for name in fields:
        assert f"`{name}`" in section
    for name in OUTPUT:
        assert f"OUTPUT/{name}" in section


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
    assert "this run is trained to its end" in lines
    assert not [line for line in lines if line.startswith(("epoch", "decoded"))]


def test_other_settings_on_the_same_output_are_refused(finished) -> None:
    _, config, *_ = finished
    with pytest.raises(InputError, match="a run with --seed 0, and this one has 5"):
        run(dataclasses.replace(config, seed=5))


def test_two_workers_from_s3_to_s3_with_two_images(
    s3: Callable[[str], str], encoder_file: str
) -> None:
    """Fewer images than workers, which hold all CPUs while others decode: nobody waits for ever."""
    bucket = s3("train")
    write_shapes(f"{bucket}/data", 2)
    config = settings(
        *(f"{bucket}/data", f"{bucket}/runs/one", encoder_file),
        **{"epochs": 1, "workers": 2, "cache": "none"},
    )
    summary, lines = run(config)
    assert any("decoded anew" in line for line in lines)
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


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, finished):
    """The output folder and the lines of the same run without workers."""
    output = tmp_path_factory.mktemp("alone") / "out"
    _, lines = run(dataclasses.replace(finished[1], output=str(output), workers=0))
    return output, lines


def test_an_interrupted_run_goes_on_after_its_last_epoch(
    finished, alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends where one that was never interrupted ends."""
    from segray.training.loop import TrainingLoop

    config = dataclasses.replace(finished[1], output=str(tmp_path / "out"), workers=0)
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
    assert summary.epochs == 3
    done = [line.split()[1] for line in lines if line.startswith("epoch") and "mIoU" in line]
    assert done == ["3/3"]
    names = child_names(str(tmp_path / "out" / "previews"))
    assert names == [f"epoch_000{i}.png" for i in (1, 2, 3)]
    straight, _ = alone
    assert scores(tmp_path / "out") == scores(straight)
    assert weights(tmp_path / "out") == weights(straight)


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


def test_workers_that_die_or_hang_are_replaced_without_a_person(
    finished, tmp_path: Path, mlflow_server: MlflowServer
) -> None:
    """One is killed in the second epoch, and one hangs in the third: it is named, and holds up the
    others only until --stall-timeout. The run ends as if nothing had been, on the tracking server
    as well.
    """
    from segray.training import fit as fit_module

    folder, config, *_ = finished

    def train_and_fail(loop_settings: dict) -> None:
        import ray.train

        from segray.training.loop import TrainingLoop
        from segray.training.worker import train_worker

        score = TrainingLoop._score

        def fail_once_each(loop: TrainingLoop, epoch: int) -> dict:
            mark = tmp_path / f"failed_in_{epoch}"
            rank = ray.train.get_context().get_world_rank()
            if rank == 1 and epoch > 1 and not mark.exists():
                mark.write_text(str(os.getpid()))
                if epoch == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(3600)
            return score(loop, epoch)

        TrainingLoop._score = fail_once_each  # type: ignore[method-assign]
        train_worker(loop_settings)

    again = dataclasses.replace(
        config, output=str(tmp_path / "out"), stall_timeout=30.0, mlflow=mlflow_server.url
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "train_worker", train_and_fail)
        summary, lines = run(again)
    assert (tmp_path / "failed_in_2").exists()
    process = (tmp_path / "failed_in_3").read_text()
    [told] = [line for line in lines if "did not come to" in line]
    assert f"worker 1 (process {process} on" in told
    assert "the scores of epoch 3 within 30 s" in told
    for epoch in (1, 2):
        assert f"going on after epoch {epoch}, the last one saved" in lines
    assert summary.epochs == 3
    assert scores(tmp_path / "out") == scores(folder / "out")
    assert weights(tmp_path / "out") == weights(folder / "out")
    tracked = mlflow_server.losses_of(tmp_path / "out")
    assert tracked == [(record["epoch"], record["loss"]) for record in scores(tmp_path / "out")]
    assert mlflow_server.run_of(tmp_path / "out")["info"]["status"] == "FINISHED"


def test_training_without_workers_writes_the_same_files(finished, alone) -> None:
    """And the same scores but for the last digits, which the order of sums decides."""
    folder, *_ = finished
    output, lines = alone
    assert child_names(str(output)) == list(OUTPUT)
    for part in ("model", "previews", "tensorboard", "evaluation"):
        assert child_names(str(output / part)) == child_names(str(folder / "out" / part))
    assert not [line for line in lines if "worker" in line]
    assert len(scores(output)) == 3
    assert scores(output)[0]["train_loss"] == pytest.approx(
        scores(folder / "out")[0]["train_loss"], rel=1e-3
    )


def test_examples_decoded_anew_each_epoch_give_the_same_model(
    finished, alone, tmp_path: Path
) -> None:
    straight, kept_lines = alone
    config = dataclasses.replace(finished[1], output=str(tmp_path / "out"), workers=0, cache="none")
    _, lines = run(config)
    assert any("decoded anew" in line for line in lines)
    assert not any("decoded anew" in line for line in kept_lines)
    assert scores(tmp_path / "out") == scores(straight)
    assert weights(tmp_path / "out") == weights(straight)


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
    assert "temperature" not in document
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
    for name in ("model", "evaluation"):
        shutil.rmtree(folder / "out" / name)
    (folder / "out" / "skipped.jsonl").write_text("the list of the start")
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

    shutil.copytree(before / "images", folder / "images", dirs_exist_ok=True)
    shutil.copytree(before / "masks", folder / "masks", dirs_exist_ok=True)
    assert spoilt.read_bytes() == content
    table = folder / "out" / "pairs.csv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(rows[:-1]))
    with pytest.raises(InputError, match=r"on other data \(pairs.csv is not as that run wrote it"):
        run(moved)
    table.unlink()
    with pytest.raises(InputError, match=r"on other data \(pairs.csv, which says on what, is gone"):
        run(moved)

    # A run that was refused has changed nothing.
    assert (folder / "out" / "skipped.jsonl").read_text() == "the list of the start"
    table.write_text("".join(rows))
    again, lines = run(moved)
    assert again.best == summary.best
    assert [line for line in lines if line.startswith("1 pair(s) are left out: the run in")]


def test_a_file_that_was_skipped_and_repaired_stays_left_out(
    tmp_path: Path, encoder_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on with the pairs it was started on, and in the same parts.

    It goes on without the encoder's file as well: the checkpoint has those weights.
    """
    from segray.training.loop import TrainingLoop

    folder = tmp_path / "data"
    write_shapes(str(folder), 30)
    spoilt = folder / "images" / "shape_11.jpg"
    content = spoilt.read_bytes()
    spoilt.write_bytes(content[:-300])
    mine = tmp_path / "encoder.h5"
    shutil.copy(encoder_file, mine)
    config = settings(str(folder), str(tmp_path / "out"), str(mine), workers=0)
    straight = dataclasses.replace(config, output=str(tmp_path / "straight"))
    run(straight)

    def fall(loop: TrainingLoop, epoch: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_write_preview", fall)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    table = (tmp_path / "out" / "pairs.csv").read_bytes()
    skipped = (tmp_path / "out" / "skipped.jsonl").read_bytes()
    assert b"truncated" in skipped

    spoilt.write_bytes(content)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        shutil.copy(folder / kind / f"shape_1.{suffix}", folder / kind / f"added.{suffix}")
    mine.unlink()
    summary, lines = run(config)
    assert "going on after epoch 1, the last one saved" in lines
    [told] = [line for line in lines if "left out" in line]
    assert told.startswith("2 pair(s) are left out: the run in")
    assert summary.epochs == 2
    assert scores(tmp_path / "out") == scores(tmp_path / "straight")
    assert weights(tmp_path / "out") == weights(tmp_path / "straight")
    assert (tmp_path / "out" / "pairs.csv").read_bytes() == table
    assert (tmp_path / "out" / "skipped.jsonl").read_bytes() == skipped

    # Begun anew, it would need that file.
    for name in ("model", "evaluation"):
        shutil.rmtree(tmp_path / "out" / name)
    for checkpoint in (tmp_path / "out" / "checkpoints").glob("*.npz"):
        checkpoint.write_bytes(b"damaged")
    with pytest.raises(InputError, match=rf"^cannot read {mine}: no such file"):
        run(config)


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


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_part_without_a_label_is_refused_before_it_is_learned(tmp_path: Path, part: str) -> None:
    for name in ("labelled", "ignored"):
        write_shapes(str(tmp_path / name), 6)
    for mask in (tmp_path / "ignored" / "masks").iterdir():
        with Image.open(mask) as opened:
            Image.new("L", opened.size, 255).save(mask)
    train, other = ("ignored", "labelled") if part == "training" else ("labelled", "ignored")
    config = settings(
        *(str(tmp_path / train), str(tmp_path / "out"), "none"),
        ignore_values=("255",),
        validation_images=str(tmp_path / other / "images"),
        validation_masks=str(tmp_path / other / "masks"),
        workers=0,
    )
    lines: list[str] = []
    with pytest.raises(InputError, match=f"no pixel of the {part} part is labelled: every value"):
        run(config, lines)
    assert not [line for line in lines if "compiling" in line]
    # The folder is free for a run with better masks.
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_class_that_is_nowhere_is_named(tmp_path: Path) -> None:
    write_shapes(str(tmp_path), 6)
    classes = ("box=10", "ground=20", "sky=30", "sea=40")
    config = settings(
        *(str(tmp_path), str(tmp_path / "out"), "none"), classes=classes, workers=0, epochs=1
    )
    _, lines = run(config)
    for part in ("training", "validation"):
        assert f"no pixel of the {part} part is of the class sky or sea" in lines


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_second_run_on_an_output_is_refused_while_the_first_is_at_work(
    tmp_path: Path, place: str, s3: Callable[[str], str]
) -> None:
    write_shapes(str(tmp_path), 6)
    output = s3("locked-run") if place == "s3" else str(tmp_path / "out")
    config = settings(str(tmp_path), output, "none", workers=0, epochs=1)
    with (
        hold_lock(output, print),
        pytest.raises(InputError, match="another run is at work on this output"),
    ):
        run(config)
    assert child_names(output) == []
    preparation = prepare_training(config, print)
    run(config)
    # One that was prepared before the other began takes the place of none.
    from segray.training.run import train

    with pytest.raises(InputError, match=r"has begun .* just now: run again"):
        train(preparation, print)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, encoder_file: str) -> None:
    # Three steps: the first one's loss is still a number.
    write_shapes(str(tmp_path), 30)
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

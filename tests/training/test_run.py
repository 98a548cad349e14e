"""Training runs on a real Ray, from files to a bundle."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segray
from segray.errors import InputError
from segray.storage.uri import child_names, join_uri, read_bytes
from segray.training.config import TrainConfig
from segray.training.prepare import prepare_training
from tests.support import write_shapes

pytestmark = pytest.mark.usefixtures("ray_session")


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


def run(config: TrainConfig):
    """What jobs/train.py does, and the lines that it would print."""
    from segray.training.run import train

    lines: list[str] = []
    summary = train(prepare_training(config, lines.append), lines.append)
    return summary, lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_session: None, encoder_file: str):
    """A run with two workers; each writes down the weights that it ends with."""
    from segray.training import run as run_module

    folder = tmp_path_factory.mktemp("run")
    write_shapes(str(folder), 30)

    def train_and_tell(loop_settings: dict) -> None:
        from segray.training.worker import start_worker

        worker = start_worker(loop_settings["assignment"])
        worker.run()
        context = __import__("ray").train.get_context()
        np.savez(
            folder / f"rank{context.get_world_rank()}.npz", *worker.network.model.get_weights()
        )

    config = settings(str(folder), str(folder / "out"), encoder_file, workers=2, epochs=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "train_worker", train_and_tell)
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
    assert set(child_names(output)) >= {"model", "checkpoints", "metrics.jsonl", "curves.png"}
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
    assert child_names(f"{bucket}/runs/one") == sorted(
        [
            *("checkpoints", "config.json", "curves.png", "metrics.jsonl"),
            *("model", "previews", "tensorboard"),
        ]
    )
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
    import ray.train

    from segray.training import run as run_module

    def train_and_fall(loop_settings: dict) -> None:
        """Break down in the second epoch, its pictures written and its checkpoint not."""
        import ray.train

        from segray.training.worker import start_worker

        report = ray.train.report

        def report_once(metrics: dict, checkpoint: object) -> None:
            if metrics["epoch"] == 2:
                raise RuntimeError("the power is gone")
            report(metrics, checkpoint=checkpoint)

        ray.train.report = report_once
        start_worker(loop_settings["assignment"]).run()

    write_shapes(str(tmp_path), 20)
    config = settings(str(tmp_path), str(tmp_path / "out"), encoder_file, epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "train_worker", train_and_fall)
        with pytest.raises(ray.train.WorkerGroupError, match="the power is gone"):
            run(config)
    assert not (tmp_path / "out" / "model").exists()
    first = json.loads((tmp_path / "out/metrics.jsonl").read_text().splitlines()[0])

    summary, lines = run(config)
    assert summary.epochs == 3
    done = [line.split()[1] for line in lines if line.startswith("epoch") and "mIoU" in line]
    assert done == ["2/3", "3/3"]
    assert json.loads((tmp_path / "out/metrics.jsonl").read_text().splitlines()[0]) == first


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, encoder_file: str) -> None:
    write_shapes(str(tmp_path), 10)
    config = settings(str(tmp_path), str(tmp_path / "out"), encoder_file, learning_rate=1e30)
    with pytest.raises(InputError, match="no number any more in epoch 1: lower --learning-rate"):
        run(config)


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

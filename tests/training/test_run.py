"""Training runs on a real Ray, from files to a bundle."""

import dataclasses
import io
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import segray
from segray.errors import InputError
from segray.model.bundle import open_bundle
from segray.model.reference import BINS, IMAGE_FEATURES, read_reference
from segray.pixels.appearance import APPEARANCE, measure_appearance
from segray.pixels.decoding import read_picture
from segray.pixels.framing import Frame
from segray.storage.files import child_names, read_bytes
from segray.storage.uri import join_uri
from tests.support import write_shapes
from tests.training.mlflow_server import MlflowServer
from tests.training.runs import run, scores, settings, tutorial_settings, weights

pytestmark = pytest.mark.usefixtures("ray_session")


#: What the contract names, in a run's folder.
OUTPUT = (
    *("checkpoints", "config.json", "curves.png", "evaluation", "metrics.jsonl"),
    *("model", "pairs.csv", "previews", "tensorboard"),
)


# Neither a square nor squashed: what holds here holds for these, too.
SHAPE = {"image_size": (32, 64), "fit": "letterbox"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_session: None, encoder_file: str):
    """A run with two workers; each writes down the weights that it ends with."""
    from segray.training.control import fit as fit_module

    folder = tmp_path_factory.mktemp("run")
    write_shapes(str(folder), 30)

    def train_and_tell(loop_settings: dict) -> None:
        import ray.train

        from segray.training.control.loop import TrainingLoop
        from segray.training.control.worker import train_worker

        run_epoch = TrainingLoop._run_epoch

        def run_and_save(loop: TrainingLoop, epoch: int) -> dict:
            record = run_epoch(loop, epoch)
            file = folder / f"rank{ray.train.get_context().get_world_rank()}.npz"
            np.savez(file, *loop.network.model.get_weights())
            return record

        TrainingLoop._run_epoch = run_and_save  # type: ignore[method-assign]
        train_worker(loop_settings)

    config = settings(str(folder), str(folder / "out"), encoder_file, **SHAPE, workers=2, epochs=3)
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
        "reference.json",
    ]
    assert child_names(join_uri(output, "previews")) == [f"epoch_000{i}.png" for i in (1, 2, 3)]
    assert child_names(join_uri(output, "tensorboard")) == [
        f"events.out.tfevents.000{i}.segray" for i in (1, 2, 3)
    ]
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
    scores = json.loads((folder / "out/evaluation/metrics.json").read_text())["model_resolution"]
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
    section = (Path(__file__).parents[2] / "docs" / "outputs" / "training.md").read_text()
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
    assert all("images/s" in line and " left" in line for line in epochs)


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
    assert open_bundle(f"{folder}/out/model", []).frame == Frame(32, 64, "letterbox")


def test_the_model_segments(finished) -> None:
    folder, *_ = finished
    segmenter = segray.load(str(folder / "out/model"))
    image = next((folder / "images").iterdir())
    with Image.open(image) as opened:
        assert segmenter.segment(image).shape == (opened.height, opened.width)


def test_the_model_keeps_what_its_images_look_like(finished) -> None:
    folder, config, *_ = finished
    bundle = open_bundle(join_uri(config.output, "model"), [])
    reference = read_reference(bundle.uri, bundle.digest, bundle.labels)
    assert reference is not None
    looks = [
        measure_appearance(read_picture(file.read_bytes(), bundle.frame))
        for file in (folder / "images").iterdir()
    ]
    for feature in IMAGE_FEATURES[: len(APPEARANCE)]:
        values = np.array([getattr(look, feature.name) for look in looks])
        bins = feature.find_bins({feature.name: values})
        assert reference[feature.name].tolist() == np.bincount(bins, minlength=BINS).tolist()
    scored = pq.read_table(join_uri(config.output, "evaluation", "per_image.parquet"))
    assert len(scored) < len(looks)
    for name in ("expected_iou", "fraction_box", "fraction_ground"):
        assert reference[name].sum() == len(scored)


def test_a_finished_run_is_not_trained_again(finished) -> None:
    folder, config, summary, _ = finished
    before = (folder / "out/model/model.json").read_bytes()
    # Its data may be gone by now.
    away = [(folder / kind, folder / f"{kind}-gone") for kind in ("images", "masks")]
    for there, gone in away:
        there.rename(gone)
    try:
        again, lines = run(config)
    finally:
        for there, gone in away:
            gone.rename(there)
    assert again == summary
    assert (folder / "out/model/model.json").read_bytes() == before
    assert "this run is finished already; for another run give another --output" in lines
    assert not [line for line in lines if line.startswith(("epoch", "decoded"))]


def test_other_settings_on_the_same_output_are_refused(finished) -> None:
    _, config, *_ = finished
    with pytest.raises(InputError, match=r"started with --seed 0, and .* has --seed 5"):
        run(dataclasses.replace(config, seed=5))
    # Of the many settings that differ then, the one that was given is named.
    tutorial = dataclasses.replace(config, **tutorial_settings())
    with pytest.raises(InputError, match=r"--recipe segray, and .* has --recipe tutorial"):
        run(tutorial)


@pytest.mark.slow
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
    assert any("decoded in each epoch" in line for line in lines)
    assert summary.output == f"{bucket}/runs/one"
    assert child_names(f"{bucket}/runs/one") == list(OUTPUT)
    assert segray.load(f"{bucket}/runs/one/model").labels.names == ("box", "ground")


def test_tensorboard_gets_every_number(finished) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorflow.data import TFRecordDataset

    folder, *_ = finished
    files = sorted(map(str, (folder / "out/tensorboard").iterdir()))
    events = [Event.FromString(record.numpy()) for record in TFRecordDataset(files)]
    scalars = [event for event in events for v in event.summary.value if v.tag == "mean_iou"]
    assert [event.step for event in scalars] == [1, 2, 3]
    times = [event.wall_time for event in scalars]
    assert times == sorted(set(times))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, finished):
    """The output folder and the lines of the same run without workers."""
    output = tmp_path_factory.mktemp("alone") / "out"
    _, lines = run(dataclasses.replace(finished[1], output=str(output), workers=0))
    return output, lines


def test_an_interrupted_run_goes_on_after_its_last_epoch(
    finished, alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends where one that was never interrupted ends, and that kept its examples in memory."""
    from segray.training.control.loop import TrainingLoop

    others = {"output": str(tmp_path / "out"), "workers": 0, "cache": "none"}
    config = dataclasses.replace(finished[1], **others)
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
    straight, kept_lines = alone
    assert any("decoded in each epoch" in line for line in lines)
    assert not any("decoded in each epoch" in line for line in kept_lines)
    assert scores(tmp_path / "out") == scores(straight)
    assert weights(tmp_path / "out") == weights(straight)


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_workers_that_die_or_hang_are_replaced_without_a_person(
    finished, tmp_path: Path, mlflow_server: MlflowServer, hangs: bool
) -> None:
    """One is killed in the second epoch, and one may hang in the third: it is named, and holds up
    the others only until --stall-timeout. The run ends as if nothing had been, on the tracking
    server as well.
    """
    from segray.training.control import fit as fit_module

    folder, config, *_ = finished

    def train_and_fail(loop_settings: dict) -> None:
        import ray.train

        from segray.training.control.loop import TrainingLoop
        from segray.training.control.worker import train_worker

        score = TrainingLoop._score

        def fail_once_each(loop: TrainingLoop, epoch: int) -> dict:
            mark = tmp_path / f"failed_in_{epoch}"
            rank = ray.train.get_context().get_world_rank()
            if rank == 1 and 1 < epoch < 3 + hangs and not mark.exists():
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
    told = [line for line in lines if "did not reach" in line]
    assert len(told) == hangs
    if hangs:
        process = (tmp_path / "failed_in_3").read_text()
        assert f"worker 1 (process {process} on" in told[0]
        assert "the scores of epoch 3 within 30 s" in told[0]
    for epoch in (1, 2)[: 1 + hangs]:
        assert f"resuming after epoch {epoch}" in lines
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

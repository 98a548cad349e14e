"""Training runs on a real Ray: their data, and how they end."""

import dataclasses
import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segray
from segray.data.pairs import find_pairs
from segray.data.pairs_table import read_manifest
from segray.errors import InputError
from segray.model.bundle import ONNX, open_bundle
from segray.storage import lock
from segray.storage.files import PARTIAL, child_names, write_bytes
from segray.storage.lock import LOCK, hold_lock
from segray.training.control.assignment import Assignment
from segray.training.plan import prepare_training
from tests.support import free_port, logged_lines, write_shapes
from tests.training.runs import fit_as, run, settings, tutorial_settings, weights

pytestmark = pytest.mark.usefixtures("ray_session")


def test_the_tutorial_can_be_run(tmp_path: Path, encoder_file: str) -> None:
    """Its settings: pixels in [0, 1], a frozen encoder, a constant rate."""
    write_shapes(str(tmp_path), 12)
    recipe = {**tutorial_settings(), "batch_size": 8, "epochs": 1, "workers": 0}
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
    assert document["architecture"]["even_upsampling"] is False
    image = tmp_path / "images" / "shape_0.jpg"
    mask, other = (
        segray.load(str(tmp_path / "out/model"), engine=engine).segment(image)
        for engine in ("onnx", "tensorflow")
    )
    assert mask.max() <= 1
    # Both build the tutorial's decoder: with another one, masks part along every border.
    assert np.count_nonzero(mask != other) <= 2


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


@pytest.fixture
def fitted(stopped, monkeypatch: pytest.MonkeyPatch) -> list[Assignment]:
    """Runs are not fitted, but end with what came of the one that stopped: for tests of what is
    around the fitting. What would have been learned from.
    """
    from segray.training import run as run_module

    assignments: list[Assignment] = []
    monkeypatch.setattr(run_module, "fit", fit_as(stopped[0] / "out", assignments))
    return assignments


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end, as by Ctrl-C, where they would be fitted: for tests of what is before that."""
    from segray.training import run as run_module

    def fall(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "fit", fall)


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


def test_files_that_are_not_as_they_were_are_named(
    stopped, tmp_path: Path, fitted: list[Assignment]
) -> None:
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
    tmp_path: Path,
    encoder_file: str,
    stopped,
    fitted: list[Assignment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run goes on with the pairs it was started on, and in the same parts.

    It goes on without the encoder's file as well: the checkpoint has those weights.
    """
    import ray

    from segray.training import run as run_module

    folder = tmp_path / "data"
    write_shapes(str(folder), 30)
    spoilt = folder / "images" / "shape_11.jpg"
    content = spoilt.read_bytes()
    spoilt.write_bytes(content[:-300])
    mine = tmp_path / "encoder.h5"
    shutil.copy(encoder_file, mine)
    config = settings(str(folder), str(tmp_path / "out"), str(mine), workers=0)

    def fall(assignment: Assignment, track: object) -> None:
        fitted.append(assignment)
        shutil.copytree(stopped[0] / "out" / "checkpoints", tmp_path / "out" / "checkpoints")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "fit", fall)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    table = (tmp_path / "out" / "pairs.csv").read_bytes()
    skipped = (tmp_path / "out" / "skipped.jsonl").read_bytes()
    assert b"truncated" in skipped

    spoilt.write_bytes(content)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        shutil.copy(folder / kind / f"shape_1.{suffix}", folder / kind / f"added.{suffix}")
    mine.unlink()
    _, lines = run(config)
    [told] = [line for line in lines if "left out" in line]
    assert told.startswith("2 pair(s) are left out: the run in")
    begun, resumed = fitted
    assert len(resumed.train.pairs) == 23
    assert resumed.train.pairs == begun.train.pairs
    assert resumed.validation.pairs == begun.validation.pairs
    assert ray.get(resumed.encoder_weights) == b""
    assert (tmp_path / "out" / "pairs.csv").read_bytes() == table
    assert (tmp_path / "out" / "skipped.jsonl").read_bytes() == skipped

    # Begun anew, it would need that file.
    for name in ("model", "evaluation"):
        shutil.rmtree(tmp_path / "out" / name)
    for checkpoint in (tmp_path / "out" / "checkpoints").glob("*.npz"):
        checkpoint.write_bytes(b"damaged")
    with pytest.raises(InputError, match=rf"^--encoder-weights: cannot read {mine}: no such file"):
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
    tmp_path: Path, encoder_file: str, fitted: list[Assignment]
) -> None:
    write_shapes(str(tmp_path), 12)
    (tmp_path / "images" / "shape_3.jpg").write_bytes(b"no image")
    (tmp_path / "masks" / "shape_4.png").unlink()
    config = settings(str(tmp_path), str(tmp_path / "out"), encoder_file, workers=0, epochs=1)
    said = r"^1 of 11 pairs cannot be used and 1 file\(s\) have no partner \(16\.67%\)"
    with pytest.raises(InputError, match=said):
        run(dataclasses.replace(config, max_error_rate=0.1))
    skipped = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["image"]).name for line in skipped] == [
        "shape_3.jpg",
        "shape_4.jpg",
    ]
    assert not fitted
    summary, lines = run(dataclasses.replace(config, max_error_rate=0.2))
    assert "decoded 11 pairs" in "\n".join(lines)
    [told] = [line for line in lines if "cannot be used" in line]
    assert told.startswith(f"1 pair(s) cannot be used, the first: {tmp_path}/images/shape_3.jpg: ")
    assert told.endswith(f"; see {tmp_path}/out/skipped.jsonl")
    [assignment] = fitted
    pairs = [*assignment.train.pairs, *assignment.validation.pairs]
    left = {f"shape_{number}.jpg" for number in range(12) if number not in (3, 4)}
    assert len(pairs) == 10
    assert summary.evaluation["counts"]["evaluated"] == len(assignment.validation.pairs)
    assert {Path(pair.image).name for pair in pairs} == left


def test_too_many_files_without_a_partner_are_refused_before_anything_is_decoded(
    tmp_path: Path, lines: list[str]
) -> None:
    write_shapes(str(tmp_path), 6)
    for number in range(4):
        (tmp_path / "masks" / f"shape_{number}.png").unlink()
    config = settings(str(tmp_path), str(tmp_path / "out"), "none", workers=0)
    said = r"^4 file\(s\) have no partner, beside 2 pair\(s\) \(66\.67%\), over --max-error-rate"
    with pytest.raises(InputError, match=said):
        prepare_training(config)
    assert len((tmp_path / "out" / "skipped.jsonl").read_text().splitlines()) == 4
    preparation = prepare_training(dataclasses.replace(config, max_error_rate=0.7))
    assert len(preparation.skipped) == 4
    [told] = [line for line in lines if "no partner" in line]
    assert told == f"4 file(s) have no partner and are left out: see {tmp_path}/out/skipped.jsonl"


def test_a_wrong_class_value_is_told_with_what_to_do(tmp_path: Path) -> None:
    write_shapes(str(tmp_path), 6)
    classes = ("box=11", "ground=21")
    with pytest.raises(InputError) as refusal:
        run(settings(str(tmp_path), str(tmp_path / "out"), "none", classes=classes, workers=0))
    message = str(refusal.value)
    assert message.startswith("6 of 6 pairs cannot be used (100.00%)")
    assert "has the values 20 in " in message
    # To ignore all that the masks have would leave nothing to learn.
    assert "train with a class for each" in message
    assert "--ignore-values" not in message
    assert message.endswith("lists them all: repair them or correct the flags")


def test_fewer_images_than_a_batch_are_told(tmp_path: Path, lines: list[str]) -> None:
    write_shapes(str(tmp_path), 6)
    prepare_training(settings(str(tmp_path), str(tmp_path / "out"), "none", workers=0, epochs=1))
    assert "5 pairs do not fill a batch of --batch-size 8: some are repeated in a batch" in lines


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_part_without_a_label_is_refused_before_it_is_learned(
    tmp_path: Path, part: str, lines: list[str]
) -> None:
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
    with pytest.raises(InputError, match=f"no pixel of the {part} set is labelled: every value"):
        run(config)
    assert not [line for line in lines if "compiling" in line]
    # The folder is free for a run with better masks.
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_class_that_is_nowhere_is_named(
    tmp_path: Path, interrupted: None, lines: list[str]
) -> None:
    write_shapes(str(tmp_path), 6)
    classes = ("box=10", "ground=20", "sky=30", "sea=40")
    config = settings(
        *(str(tmp_path), str(tmp_path / "out"), "none"), classes=classes, workers=0, epochs=1
    )
    with pytest.raises(KeyboardInterrupt):
        run(config)
    for part in ("training", "validation"):
        assert f"no pixel of the {part} set is of the class sky or sea" in lines


def check_that_it_ends(
    folder: Path, s3: Callable[[str], str], workers: int, epochs: int, moment: str
) -> str:
    """Take a run's lock at a line that it tells, and see that it ends; its output."""
    from segray.training.run import train

    write_shapes(str(folder), 12)
    output = s3(f"taken-run-{workers}-{epochs}") + "/out"
    config = settings(str(folder), output, "none", workers=workers, epochs=epochs)
    slept = []

    def take(line: str) -> None:
        if line.startswith(moment):
            write_bytes(f"{output}/{LOCK}", b'{"run": "of someone else"}')
            if epochs == 1:
                time.sleep(60)  # as long as scoring may take
                slept.append(True)

    # As in a terminal: what runs the tests in the background may let them ignore the keyboard.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with logged_lines(take) as lines, pytest.raises(InputError, match="was taken by another"):
            train(prepare_training(config))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not [line for line in lines if line.startswith("epoch 100/")]
    assert not slept
    assert child_names(output).count(LOCK) == 1
    assert "evaluation" not in child_names(output)
    return output


# The signal may come in the middle of a request, whose socket is then left to the collector.
@pytest.mark.filterwarnings("ignore:.*unclosed <socket")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_whose_lock_is_taken_ends_at_once(
    tmp_path: Path, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.1)
    output = check_that_it_ends(tmp_path, s3, workers, 500, "epoch   2/")
    assert "model" not in child_names(output)


@pytest.mark.filterwarnings("ignore:.*unclosed <socket")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")
def test_a_run_whose_lock_is_taken_as_it_scores_ends_at_once(
    tmp_path: Path,
    s3: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    fitted: list[Assignment],
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.1)
    check_that_it_ends(tmp_path, s3, 1, 1, "scoring 2 pairs")


@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_second_run_on_an_output_is_refused_while_the_first_is_at_work(
    tmp_path: Path, place: str, s3: Callable[[str], str], interrupted: None
) -> None:
    write_shapes(str(tmp_path), 6)
    output = s3("locked-run") if place == "s3" else str(tmp_path / "out")
    config = settings(str(tmp_path), output, "none", workers=0, epochs=1)
    with (
        hold_lock(output),
        pytest.raises(InputError, match="another run is at work on this output"),
    ):
        run(config)
    assert child_names(output) == []
    preparation = prepare_training(config)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    # One that was prepared before the other began takes the place of none.
    from segray.training.run import train

    with pytest.raises(InputError, match=r"has begun .* just now: run again"):
        train(preparation)


def test_a_loss_that_is_no_number_ends_the_run(
    tmp_path: Path, encoder_file: str, lines: list[str]
) -> None:
    # Three steps: the first one's loss is still a number.
    write_shapes(str(tmp_path), 30)
    config = settings(
        str(tmp_path), str(tmp_path / "out"), encoder_file, learning_rate=1e30, workers=0
    )
    with pytest.raises(InputError, match="no number any more in epoch 1: lower --learning-rate"):
        run(config)
    # The error says it, and no line before it.
    assert not [line for line in lines if "no number" in line]


def test_a_validation_set_that_is_learned_from_is_refused(tmp_path: Path) -> None:
    write_shapes(str(tmp_path), 4)
    config = settings(
        *(str(tmp_path), str(tmp_path / "out"), "none"),
        validation_images=str(tmp_path / "images"),
        validation_masks=str(tmp_path / "masks"),
    )
    with pytest.raises(InputError, match=r"^4 image\(s\) are in both --images and --validation-im"):
        prepare_training(config)


def test_copies_of_what_is_learned_from_are_told(
    tmp_path: Path, encoder_file: str, interrupted: None, lines: list[str]
) -> None:
    write_shapes(str(tmp_path / "data"), 5)
    write_shapes(str(tmp_path / "copies"), 3)
    config = settings(
        *(str(tmp_path / "data"), str(tmp_path / "out"), encoder_file),
        validation_images=str(tmp_path / "copies" / "images"),
        validation_masks=str(tmp_path / "copies" / "masks"),
        **{"workers": 0, "epochs": 1},
    )
    with pytest.raises(KeyboardInterrupt):
        run(config)
    [told] = [line for line in lines if "copies" in line]
    assert told.startswith(
        "3 pair(s) of the validation set are copies of pairs of the training set"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model/model.json", "{"),
        ("model/model.json", "{}"),
        ("metrics.jsonl", '{"epoch": 1}\n{"x'),
        ("evaluation/metrics.json", "[]"),
    ],
)
def test_a_finished_run_with_a_damaged_file_says_so(
    stopped, tmp_path: Path, name: str, content: str
) -> None:
    folder, config, _ = stopped
    output = shutil.copytree(folder / "out", tmp_path / "out")
    (output / name).write_text(content)
    with pytest.raises(InputError, match=f"{name} is damaged: delete it with the folder model/"):
        run(dataclasses.replace(config, output=str(output)))


def test_a_finished_run_is_not_taken_for_one_on_other_data(stopped, tmp_path: Path) -> None:
    folder, config, _ = stopped
    output = str(shutil.copytree(folder / "out", tmp_path / "out"))
    for name in ("moved", "other"):
        for kind in ("images", "masks"):
            shutil.copytree(folder / kind, tmp_path / name / kind)
    for image in (tmp_path / "other" / "images").iterdir():
        with Image.open(image) as opened:
            opened.rotate(180).save(image)

    def again(name: str):
        data = {kind: str(tmp_path / name / kind) for kind in ("images", "masks")}
        return run(dataclasses.replace(config, output=output, **data))

    _, lines = again("moved")
    assert lines[-1] == "this run is finished already; for another run give another --output"
    with pytest.raises(InputError, match="holds a finished run on other data"):
        again("other")


def test_a_finished_run_that_lost_a_file_of_its_model_writes_it_again(
    stopped, tmp_path: Path
) -> None:
    folder, config, _ = stopped
    output = shutil.copytree(folder / "out", tmp_path / "out")
    before = weights(output)
    (output / "model" / "model.onnx").unlink()
    _, lines = run(dataclasses.replace(config, output=str(output)))
    assert f"{output}/model is not whole: it is made again from the checkpoints" in lines
    assert not [line for line in lines if line.startswith("epoch")]
    assert weights(output) == before
    open_bundle(str(output / "model"), [ONNX])

    # Nothing to make it from: a model of another run must not take its place without a word.
    (output / "model" / "model.onnx").unlink()
    shutil.rmtree(output / "checkpoints")
    with pytest.raises(InputError, match=r"model is gone or not whole, and there is no checkpoint"):
        run(dataclasses.replace(config, output=str(output)))
    assert weights(output) == before
    shutil.rmtree(output / "model")
    with pytest.raises(InputError, match=r"model is gone or not whole, and there is no checkpoint"):
        run(dataclasses.replace(config, output=str(output)))


@pytest.mark.parametrize(("setting", "message"), [("seed", "knew no --seed"), ("", "had --ema, ")])
def test_a_run_of_a_version_with_other_settings_is_refused(
    stopped, tmp_path: Path, setting: str, message: str
) -> None:
    folder, config, _ = stopped
    document = json.loads((folder / "out" / "config.json").read_text())
    if setting:
        del document["configuration"][setting]
    else:
        document["configuration"]["ema"] = 0.99
    (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=f"a run of another version of segray, (which )?{message}"):
        prepare_training(dataclasses.replace(config, output=str(tmp_path)))


def test_a_run_that_goes_on_with_other_versions_says_so(
    stopped, tmp_path: Path, lines: list[str]
) -> None:
    folder, config, _ = stopped
    document = json.loads((folder / "out" / "config.json").read_text())
    for versions in (document["versions"], {**document["versions"], "keras": "2.0"}):
        text = json.dumps({**document, "versions": versions})
        (tmp_path / "config.json").write_text(text)
        lines.clear()
        prepare_training(dataclasses.replace(config, output=str(tmp_path)))
        said = [line for line in lines if "this run was started with" in line]
        assert bool(said) == (versions["keras"] == "2.0")
    assert said[0].startswith("this run was started with keras 2.0, now 3.")


def test_a_validation_part_that_is_gone_in_the_end_is_scored_when_it_is_back(
    tmp_path: Path, encoder_file: str, fitted: list[Assignment], monkeypatch: pytest.MonkeyPatch
) -> None:
    from segray.training import run as run_module

    data, away = tmp_path / "data", tmp_path / "away"
    write_shapes(str(data), 12)
    config = settings(str(data), str(tmp_path / "out"), encoder_file, workers=0, epochs=1)
    fit = run_module.fit

    def fit_and_lose(*arguments) -> None:
        fit(*arguments)
        data.rename(away)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "fit", fit_and_lose)
        with pytest.raises(InputError, match=r"^2 pair\(s\) of the validation set cannot be read"):
            run(config)
    assert not (tmp_path / "out" / "evaluation" / "metrics.json").exists()
    # As a process leaves it that is killed while it writes.
    half = tmp_path / "out" / "previews" / f"{PARTIAL}0123"
    half.write_bytes(b"half")

    away.rename(data)
    summary, lines = run(config)
    assert not [line for line in lines if line.startswith("epoch")]
    record = json.loads((tmp_path / "out" / "evaluation" / "metrics.json").read_text())
    assert summary.evaluation == record
    assert record["counts"]["evaluated"] == 2
    assert not half.exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"configuration": null, "data_fingerprint": "x", "reading": {}}']
)
def test_a_damaged_record_of_a_run_is_refused(tmp_path: Path, content: str) -> None:
    write_shapes(str(tmp_path), 4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json is no record of a training run"):
        prepare_training(settings(str(tmp_path), str(tmp_path / "out"), "none"))


def test_one_folder_for_images_and_masks_needs_a_suffix(tmp_path: Path) -> None:
    write_shapes(str(tmp_path / "data"), 12)
    images = tmp_path / "data" / "images"
    for mask in (tmp_path / "data" / "masks").iterdir():
        mask.rename(images / f"{mask.stem}_mask.png")
    config = settings(str(tmp_path / "data"), str(tmp_path / "out"), "none")
    config = dataclasses.replace(config, masks=str(images))
    with pytest.raises(InputError, match="--mask-suffix"):
        prepare_training(config)
    # The validation set's names are like those of the training set.
    other = {"validation_images": str(images), "validation_masks": str(images)}
    config = dataclasses.replace(config, mask_suffix="_mask")
    found = prepare_training(config)
    assert len(found.train) + len(found.validation) == 12
    assert all(p.mask == p.image.replace(".jpg", "_mask.png") for p in found.train)
    with pytest.raises(InputError, match="both --images and --validation-images"):
        prepare_training(dataclasses.replace(config, **other))


def test_an_output_with_something_else_is_refused(tmp_path: Path) -> None:
    write_shapes(str(tmp_path), 4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds something that is no training run \(thesis\.tex"):
        prepare_training(settings(str(tmp_path), str(tmp_path / "out"), "none"))


@pytest.mark.parametrize("place", ["images", "masks", "validation/images", "validation/masks"])
def test_an_output_whose_previews_the_next_run_would_learn_from_is_refused(
    tmp_path: Path, place: str
) -> None:
    write_shapes(str(tmp_path), 4)
    write_shapes(str(tmp_path / "validation"), 4)
    output = str(tmp_path / place / "out")
    config = dataclasses.replace(
        settings(str(tmp_path), output, "none"),
        validation_images=str(tmp_path / "validation" / "images"),
        validation_masks=str(tmp_path / "validation" / "masks"),
    )
    with pytest.raises(InputError, match=f"{output} lies .* give another --output"):
        prepare_training(config)
    prepare_training(dataclasses.replace(config, output=f"{tmp_path}/images-out"))

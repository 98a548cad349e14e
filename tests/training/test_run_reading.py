"""Training runs on a real Ray: which way up masks are, and which values are black and white."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segray
from segray.data.labelled import Reading
from segray.errors import InputError
from segray.evaluation.config import EvaluateConfig
from segray.evaluation.plan import prepare_evaluation
from segray.model.bundle import open_bundle
from segray.storage.files import write_bytes
from segray.training.config import TrainConfig
from segray.training.control.assignment import Assignment
from segray.training.data.dataset import DataSet
from segray.training.plan import prepare_training
from tests.corpus import STORED, oriented
from tests.support import draw_picture, encode, logged_lines
from tests.training.runs import fit_as, run, scores, settings, weights

pytestmark = pytest.mark.usefixtures("ray_session")

COUNT = 24
TURNED = "mask(s) with their photographs, by their EXIF orientation"
KINDS: list[tuple[str, dict[str, Any]]] = [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
# A third of the photographs are stored otherwise than upright, in all ways that there are.
A_THIRD = {number: 2 + number // 3 % 7 for number in range(0, COUNT, 3)}
FLIPPED = dict.fromkeys(A_THIRD, 3)

Pixels = np.ndarray


def draw(number: int) -> tuple[Pixels, Pixels]:
    """A photograph, uint8 [H, W, 3], and its mask; some are squares."""
    height, width = (44, 44) if number % 5 == 0 else (40 + number, 61 - number)
    mask = np.full((height, width), 2, dtype=np.uint8)
    mask[3 : height // 2, 5 : width // 3] = 1
    image = draw_picture(height, width, number) // 2
    image[mask == 1] += 120
    return image, mask


def write_set(
    folder: Path, orientations: dict[int, int], turn_masks: bool, colours: bool = False
) -> Path:
    """A labelled set whose photographs, and masks if they are turned, are stored by EXIF."""
    for number in range(COUNT):
        image, mask = draw(number)
        orientation = orientations.get(number, 1)
        kind, options = KINDS[number % 7 % 3]
        stored = np.ascontiguousarray(STORED[orientation](image))
        content = encode(stored, kind, exif=oriented(orientation), **options)
        if colours:
            mask = np.dstack([mask, mask, mask])
        drawn = np.ascontiguousarray(STORED[orientation](mask)) if turn_masks else mask
        # One name for all kinds: what is in a file tells its format.
        write_bytes(f"{folder}/images/p{number:02}.png", content)
        write_bytes(f"{folder}/masks/p{number:02}.png", encode(drawn, "PNG"))
    return folder


def gather(config: TrainConfig) -> tuple[DataSet, list[str]]:
    """The examples of a run, and the lines told about them."""
    from segray.training.data.gathering import gather_data

    with logged_lines() as lines:
        return gather_data(prepare_training(config)), lines


def arrays(data: DataSet) -> list[Pixels]:
    found = []
    for part in (data.train, data.validation):
        everything = [np.arange(len(part.examples))]
        [(images, masks)] = part.examples.open().read(everything)
        found += [images, masks]
    return found


def turned_told(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("turned ")]


def evaluate(model: str | Path, data: Path, output: Path, **flags: Any) -> tuple[Any, list[str]]:
    from segray.evaluation.run import evaluate

    config = EvaluateConfig(
        model=str(model),
        images=f"{data}/images",
        masks=f"{data}/masks",
        output=str(output),
        workers=1,
        **flags,
    )
    with logged_lines() as lines:
        evaluate(prepare_evaluation(config))
    return figures(output), lines


def figures(output: Path) -> Any:
    """What an evaluation has measured."""
    document = json.loads((output / "metrics.json").read_text())
    return [document[key] for key in ("counts", "original_resolution", "model_resolution")]


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("upright"), {}, turn_masks=False)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("stored"), A_THIRD, turn_masks=True)


@pytest.fixture(scope="module")
def drawn_upright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("drawn_upright"), A_THIRD, turn_masks=False)


@pytest.fixture(scope="module")
def expected_arrays(upright: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Pixels]:
    """The examples of the upright set."""
    return arrays(gather(config_of(upright, tmp_path_factory.mktemp("gathered") / "out"))[0])


@pytest.fixture(scope="module")
def evaluated(
    bundle_uri: str, upright: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, list[str]]:
    """The figures of an evaluation on the upright set, and its lines."""
    return evaluate(bundle_uri, upright, tmp_path_factory.mktemp("evaluated") / "out")


def config_of(data: Path, output: Path, **others: Any) -> TrainConfig:
    defaults = {"epochs": 1, "workers": 0, "detail": 1.0, "classes": ("box=1", "ground=2")}
    return settings(str(data), str(output), "none", **{**defaults, **others})


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize("name", ["stored", "drawn_upright"])
def test_examples_are_those_of_the_upright_set_to_the_bit(
    name: str,
    cache: str,
    expected_arrays: list[Pixels],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    folder = request.getfixturevalue(name)
    data, lines = gather(config_of(folder, tmp_path / "out", cache=cache))
    for one, other in zip(arrays(data), expected_arrays, strict=True):
        assert np.array_equal(one, other)
    count = len(A_THIRD)
    told = [f"turned {count} {TURNED}"]
    assert turned_told(lines) == (told if name == "stored" else [])
    asked = "stored" if name == "stored" else "upright"
    assert data.reading == Reading(asked)
    assert not data.skipped


def test_coloured_masks_are_turned_too(expected_arrays: list[Pixels], tmp_path: Path) -> None:
    folder = write_set(tmp_path / "data", A_THIRD, turn_masks=True, colours=True)
    classes = ("box=#010101", "ground=#020202")
    data, _ = gather(config_of(folder, tmp_path / "out", classes=classes))
    for one, other in zip(arrays(data), expected_arrays, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("turn_masks", [True, False])
def test_where_nothing_says_it_the_run_stops_and_asks(
    turn_masks: bool, expected_arrays: list[Pixels], tmp_path: Path
) -> None:
    folder = write_set(tmp_path / "data", FLIPPED, turn_masks)
    config = config_of(folder, tmp_path / "out")
    with pytest.raises(InputError, match=r"EXIF.*--mask-orientation stored") as refusal:
        run(config)
    assert "\n" not in str(refusal.value)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name != "run.lock"]
    asked = "stored" if turn_masks else "upright"
    data, lines = gather(dataclasses.replace(config, mask_orientation=asked))
    assert len(turned_told(lines)) == turn_masks
    for one, other in zip(arrays(data), expected_arrays, strict=True):
        assert np.array_equal(one, other)


def test_shapes_that_contradict_each_other_decide_for_themselves_alone(
    expected_arrays: list[Pixels], tmp_path: Path
) -> None:
    folder = write_set(tmp_path / "data", {1: 6, 2: 6}, turn_masks=True)
    write_bytes(f"{folder}/masks/p02.png", encode(draw(2)[1], "PNG"))
    data, lines = gather(config_of(folder, tmp_path / "out"))
    for one, other in zip(arrays(data), expected_arrays, strict=True):
        assert np.array_equal(one, other)
    assert data.reading == Reading("auto")
    assert turned_told(lines) == [
        "turned 1 mask(s) with their photographs, by their EXIF orientation"
    ]
    image = np.ascontiguousarray(draw(4)[0][::-1])
    write_bytes(f"{folder}/images/p04.png", encode(image, "PNG", exif=oriented(4)))
    with pytest.raises(InputError, match=r"^1 image.*EXIF.* 1 others .* 1 of .*--mask-orientation"):
        gather(config_of(folder, tmp_path / "out"))


def test_a_shape_against_the_flag_counts_among_the_skipped(tmp_path: Path, stored: Path) -> None:
    config = config_of(stored, tmp_path / "out", mask_orientation="upright")
    with pytest.raises(InputError, match=r"EXIF.*--mask-orientation upright"):
        run(config)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 12 bits in files of 16."""
    return write_bits(tmp_path_factory.mktemp("wide"), widen)


@pytest.fixture(scope="module")
def wide_run(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run on it."""
    output = tmp_path_factory.mktemp("runs") / "out"
    run(config_of(wide, output))
    return output


@pytest.mark.parametrize("name", ["stored", "drawn_upright"])
def test_a_run_settles_the_orientation_once(
    name: str,
    wide_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """It is in the run's record, by which the run goes on."""
    from segray.training import run as run_module

    assignments: list[Assignment] = []
    monkeypatch.setattr(run_module, "fit", fit_as(wide_run, assignments))
    folder, output = request.getfixturevalue(name), tmp_path / "out"
    _, lines = run(config_of(folder, output))
    asked = "stored" if name == "stored" else "upright"
    assert json.loads((output / "config.json").read_text())["reading"] == {
        "mask_orientation": asked,
        "value_range": None,
    }
    told = turned_told(lines)
    assert bool(told) == (name == "stored")
    scored = figures(output / "evaluation")
    for part in ("model", "evaluation"):
        shutil.rmtree(output / part)
    _, lines = run(config_of(folder, output))
    assert not [line for line in lines if "again" in line]
    assert figures(output / "evaluation") == scored
    begun, resumed = assignments
    assert begun.train.reading == resumed.train.reading
    with pytest.raises(InputError, match=rf"auto, and .* has --mask-orientation {asked}"):
        run(config_of(folder, output, mask_orientation=asked))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stored", "drawn_upright"])
def test_a_run_ends_as_that_on_the_upright_set(
    name: str, upright: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run(config_of(upright, tmp_path / "upright"))
    output = tmp_path / "out"
    run(config_of(request.getfixturevalue(name), output))
    assert scores(output) == scores(tmp_path / "upright")
    assert weights(output) == weights(tmp_path / "upright")
    assert figures(output / "evaluation") == figures(tmp_path / "upright" / "evaluation")


def test_evaluations_of_all_three_sets_are_alike(
    bundle_uri: str,
    evaluated: tuple[Any, list[str]],
    stored: Path,
    drawn_upright: Path,
    tmp_path: Path,
) -> None:
    expected, lines = evaluated
    assert expected[0]["evaluated"] == COUNT
    assert not turned_told(lines)
    found, lines = evaluate(bundle_uri, stored, tmp_path / "stored")
    assert found == expected
    assert turned_told(lines) == [f"turned {len(A_THIRD)} {TURNED}"]
    found, lines = evaluate(bundle_uri, drawn_upright, tmp_path / "drawn_upright")
    assert found == expected
    assert not turned_told(lines)


def test_an_evaluation_stops_and_asks_where_nothing_says_it(
    bundle_uri: str, evaluated: tuple[Any, list[str]], tmp_path: Path
) -> None:
    expected, _ = evaluated
    flipped = write_set(tmp_path / "flipped", FLIPPED, turn_masks=True)
    with pytest.raises(InputError, match=r"EXIF.*--mask-orientation"):
        evaluate(bundle_uri, flipped, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").iterdir() if path.name != "run.lock"]
    found, _ = evaluate(bundle_uri, flipped, tmp_path / "out", mask_orientation="stored")
    assert found == expected
    wrong, _ = evaluate(bundle_uri, flipped, tmp_path / "out", mask_orientation="upright")
    assert wrong[0] == expected[0]
    assert wrong[1] != expected[1]


def test_masks_of_turned_photographs_are_those_of_upright_ones(
    bundle_uri: str, upright: Path, stored: Path
) -> None:
    segmenter = segray.load(bundle_uri)
    for number in A_THIRD:
        name = f"images/p{number:02}.png"
        mask = segmenter.segment(stored / name)
        assert np.array_equal(mask, segmenter.segment(upright / name))


def write_bits(folder: Path, change: Callable[[Pixels], Pixels]) -> Path:
    """A set of grey images as a function makes them of 8 bits."""
    for number in range(COUNT):
        image, mask = draw(number)
        kind = ("PNG", "TIFF")[number % 2]
        name = f"t{number:02}.{kind.lower()}"
        write_bytes(f"{folder}/images/{name}", encode(change(image[..., 1]), kind))
        write_bytes(f"{folder}/masks/{name}", encode(mask, "PNG"))
    return folder


def widen(pixels: Pixels) -> Pixels:
    return np.rint(pixels * (4095 / 255)).astype(np.uint16)


def test_twelve_bits_are_learned_as_eight_are(tmp_path: Path) -> None:
    narrow = write_bits(tmp_path / "narrow", lambda pixels: pixels)
    wide = write_bits(tmp_path / "wide", widen)
    greatest = max(int(widen(draw(number)[0][..., 1]).max()) for number in range(COUNT))
    assert 2047 < greatest < 4095
    expected, lines = gather(config_of(narrow, tmp_path / "a"))
    assert not [line for line in lines if "--value-range" in line]
    data, lines = gather(config_of(wide, tmp_path / "b"))
    [line] = [line for line in lines if "--value-range" in line]
    assert "0 to 4095 is taken for black to white" in line
    for one, other in zip(arrays(data), arrays(expected), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    given, lines = gather(config_of(wide, tmp_path / "c", value_range=(0, 1023)))
    assert not [line for line in lines if "--value-range" in line]
    assert arrays(given)[0].mean() > 1.5 * arrays(data)[0].mean()


def test_the_range_is_kept_and_used_wherever_the_model_is(
    wide: Path, wide_run: Path, tmp_path: Path
) -> None:
    narrow = write_bits(tmp_path / "narrow", lambda pixels: pixels)
    model = wide_run / "model"
    document = json.loads((model / "model.json").read_text())
    assert document["architecture"]["value_range"] == [0, 4095]
    assert json.loads((wide_run / "config.json").read_text())["reading"]["value_range"] == [0, 4095]
    assert open_bundle(str(model), []).value_range == (0, 4095)
    segmenter = segray.load(str(model))
    different = pixels = 0
    for number in range(0, COUNT, 2):
        name = f"images/t{number:02}.png"
        one, other = segmenter.segment(wide / name), segmenter.segment(narrow / name)
        different, pixels = different + np.count_nonzero(one != other), pixels + one.size
    assert different / pixels < 0.01
    found, _ = evaluate(model, wide, tmp_path / "wide_scores")
    expected, _ = evaluate(model, narrow, tmp_path / "narrow_scores")
    assert found[1]["accuracy"] == pytest.approx(expected[1]["accuracy"], abs=0.01)

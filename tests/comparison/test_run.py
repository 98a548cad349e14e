"""A comparison of two segmentations, made without a model."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segray.comparison.comparison import Comparison
from segray.comparison.config import CompareConfig
from segray.comparison.pairing import Pairing, pair_images
from segray.comparison.run import compare
from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.results.segmentation import Segmentation
from segray.storage import lock
from segray.storage.files import child_names, read_bytes, write_bytes
from segray.storage.listing import Entry, Shard, list_pages
from segray.storage.lock import LOCK
from tests.segmentations import LABELS, Made, draw_mask, make_segmentation
from tests.support import draw_picture, encode

KEYS = [f"{number}.png" for number in range(11)]


def make(folder: Path, name: str, keys: list[str] = KEYS) -> Made:
    return make_segmentation(str(folder), keys, name=name)


def change(made: Made, keys: list[str], seed: int = 900) -> None:
    """Give images other masks, as another model would."""
    for key in keys:
        uri = f"{made.images}/{key}"
        made.masks[uri] = draw_mask(*made.masks[uri].shape, seed)
    for file in Path(made.uri, "results").iterdir():
        file.unlink()
    made.write_rows(made.entries, "other")


def run(before: Made, after: Made, **settings: Any) -> Comparison:
    output = str(Path(before.uri).parent / "compared")
    return compare(CompareConfig(results=(before.uri, after.uri), output=output, **settings))


def rows(comparison: Comparison) -> dict[str, dict[str, Any]]:
    table = pq.read_table(f"{comparison.output}/changes")
    return {row["uri"]: row for row in table.to_pylist()}


def rows_by_id(comparison: Comparison) -> dict[int, dict[str, Any]]:
    return {row["id"]: row for row in rows(comparison).values()}


def test_a_segmentation_agrees_with_itself(tmp_path: Path) -> None:
    made = make(tmp_path, "before")

    result = run(made, made)

    assert (result.compared, result.alone, result.changed) == (11, (0, 0), 0)
    assert result.agreement == dict.fromkeys(LABELS.names, 1.0)
    assert {row["changed"] for row in rows(result).values()} == {0.0}


def test_images_that_changed_alike_are_shown_in_one_order(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.segmentations.FILE_ROWS", 100)
    keys = [f"{number}.png" for number in range(30)]
    before, after = make(tmp_path, "before", keys), make(tmp_path, "after", keys)
    for made, value in ((before, 0), (after, 1)):
        made.masks = {uri: np.full((20, 30), value, np.uint8) for uri in made.masks}
        change(made, [])

    result = run(before, after)

    assert [item.id for item in result.most] == sorted(rows_by_id(result), reverse=True)[:24]
    page = read_bytes(f"{result.output}/compare.html").decode()
    assert page.count('<li class="change">') == 24


def test_only_images_that_changed_are_shown(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    change(after, KEYS[2:4])

    result = run(before, after, show=5)

    assert {item.uri for item in result.most} == {f"{before.images}/{key}" for key in KEYS[2:4]}
    assert run(before, after, show=0).most == []


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    assert run(before, after).settings == {}
    configuration = json.loads(read_bytes(f"{after.uri}/config.json"))
    configuration |= {"mask_size": "model", "columns": 9, "regions": False}
    write_bytes(f"{after.uri}/config.json", json.dumps(configuration).encode())

    result = run(before, after)

    assert result.settings == {"mask_size": ("original", "model")}
    record = json.loads(read_bytes(f"{result.output}/comparison.json"))
    assert record["settings"] == {"mask_size": {"before": "original", "after": "model"}}
    page = read_bytes(f"{result.output}/compare.html").decode()
    assert re.search("mask size.*original.*model", page)


def test_what_each_model_expects_is_told(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    ious = {LABELS.names[0]: 0.777, LABELS.names[1]: None, LABELS.names[2]: 0.333}
    record = {"expected_iou": ious, "expected_mean_iou": 0.555}
    write_bytes(f"{after.uri}/run.json", json.dumps(record).encode())

    result = run(before, after)

    record = json.loads(read_bytes(f"{result.output}/comparison.json"))
    assert record["after"]["expected_iou"] == ious
    assert (record["before"]["expected_mean_iou"], record["after"]["expected_mean_iou"]) == (
        0.625,
        0.555,
    )
    page = read_bytes(f"{result.output}/compare.html").decode()
    for value in ("0.625", "0.777", "0.333", "0.555"):
        assert value in page


def test_segmentations_of_an_earlier_version_are_compared(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    settings = json.loads(read_bytes(f"{before.uri}/config.json"))
    del settings["usual_shares"]
    write_bytes(f"{before.uri}/config.json", json.dumps(settings).encode())
    write_bytes(f"{before.uri}/run.json", b"{}")
    result = run(before, after)
    assert result.settings == {}
    assert (result.compared, result.before.expected_mean_iou) == (11, None)


def test_changes_are_those_of_the_masks(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    change(after, KEYS[2:5])

    result = run(before, after, show=2)

    found = rows(result)
    assert set(found) == set(before.masks)
    differing = total = 0
    for uri, mask in before.masks.items():
        other = after.masks[uri]
        differing, total = differing + np.sum(mask != other), total + mask.size
        assert found[uri]["changed"] == pytest.approx(np.mean(mask != other), abs=1e-6)
        for i, name in enumerate(LABELS.names):
            kept, either = np.sum((mask == i) & (other == i)), np.sum((mask == i) | (other == i))
            if either:
                assert found[uri][f"agreement_{name}"] == pytest.approx(kept / either, abs=1e-6)
            else:
                assert found[uri][f"agreement_{name}"] is None
            assert found[uri][f"lost_{name}"] == np.sum((mask == i) & (other != i))
            assert found[uri][f"gained_{name}"] == np.sum((mask != i) & (other == i))
    assert result.changed == pytest.approx(differing / total)
    most = sorted(found.values(), key=lambda row: -row["changed"])[:2]
    assert [item.uri for item in result.most] == [row["uri"] for row in most]
    record = json.loads(read_bytes(f"{result.output}/comparison.json"))
    assert record["changed"] == pytest.approx(differing / total)
    assert np.sum(record["confusion"]) == total


def test_images_of_one_side_alone_are_counted(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before", KEYS[:8]), make(tmp_path, "after", KEYS[:5])
    # Overwritten in the meantime: another image.
    after.list([*after.entries[1:], Entry(after.entries[0].uri, 0, "new")])
    for file in Path(after.uri, "results").iterdir():
        file.unlink()
    after.write_rows(after.entries)

    result = run(before, after)

    assert (result.compared, result.alone) == (4, (4, 1))


def test_the_order_of_the_classes_does_not_matter(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    other = Labels(LABELS.names[::-1], LABELS.values[::-1])
    settings = json.loads(read_bytes(f"{after.uri}/config.json"))
    write_bytes(
        f"{after.uri}/config.json", json.dumps(settings | {"labels": other.to_json()}).encode()
    )
    after.masks = {uri: 2 - mask for uri, mask in after.masks.items()}
    change(after, [])

    assert run(before, after).changed == 0


def test_masks_of_the_models_size_are_enlarged(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    before.masks = {uri: np.repeat(np.repeat(m, 2, 0), 2, 1) for uri, m in after.masks.items()}
    change(before, [])

    assert run(before, after).changed == 0


def test_a_damaged_mask_is_left_out_with_its_reason(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    for file in Path(after.uri, "results").iterdir():
        file.unlink()
    after.write_rows(after.entries[:1], "bad", mask={"bytes": b"\x89PNG\r\n\x1a\nno", "path": "x"})
    after.write_rows(after.entries[1:])

    result = run(before, after)

    assert (result.compared, len(result.skipped)) == (10, 1)
    [line] = read_bytes(f"{result.output}/skipped.jsonl").decode().splitlines()
    assert after.entries[0].uri in line
    assert "damaged" in line


def test_a_comparison_of_damaged_masks_alone_is_refused(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    for file in Path(after.uri, "results").iterdir():
        file.unlink()
    after.write_rows(after.entries, mask={"bytes": b"\x89PNG\r\n\x1a\nno", "path": "x"})

    with pytest.raises(InputError, match="damaged"):
        run(before, after)


def test_the_page_shows_what_changed_most(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    uri = f"{before.images}/{KEYS[2]}"
    picture = draw_picture(*before.masks[uri].shape)
    write_bytes(uri, encode(picture, "PNG"))
    [page] = list_pages(Shard(before.images))
    for made in (before, after):
        made.list(page.entries)
        change(made, [])
    change(after, KEYS[2:3])

    result = run(before, after, show=1)

    page = read_bytes(f"{result.output}/compare.html").decode()
    assert page.count('<li class="change">') == 1
    assert KEYS[2] in page
    # The image, both masks, and where they differ.
    assert page.count("<img ") == 4
    assert "$" not in page.partition("<body>")[2]

    # An image that has been overwritten is not shown beside the masks of another one.
    for other in (draw_picture(9, 9), 255 - picture):
        write_bytes(uri, encode(other, "PNG"))
        run(before, after, show=1)
        assert read_bytes(f"{result.output}/compare.html").decode().count("<img ") == 3


def test_a_comparison_is_made_anew_and_no_other_takes_its_place(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after")
    run(before, after)
    change(after, KEYS)
    assert run(before, after).changed > 0
    assert len(rows(run(before, after))) == 11

    with pytest.raises(InputError, match="give another --output"):
        run(after, before)


def test_a_comparison_whose_lock_was_taken_leaves_the_other_s_page(
    tmp_path: Path, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.1)
    made = make(tmp_path, "before")
    output = s3("taken-comparison") + "/out"
    config = CompareConfig(results=(made.uri, made.uri), output=output)
    compare(config)
    names = child_names(output)

    def pair_late(*segmentations: Segmentation) -> Pairing:
        write_bytes(f"{output}/{LOCK}", b'{"run": "of someone else"}')
        write_bytes(f"{output}/compare.html", b"of the other run")
        time.sleep(1)
        return pair_images(*segmentations)

    monkeypatch.setattr("segray.comparison.run.pair_images", pair_late)
    with pytest.raises(InputError, match="was taken by another run"):
        compare(config)
    assert sorted(child_names(output)) == sorted([*names, LOCK])
    assert read_bytes(f"{output}/compare.html") == b"of the other run"


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    before, after = make(tmp_path, "before"), make(tmp_path, "after", ["other.png"])
    with pytest.raises(InputError, match="no image in common"):
        run(before, after)
    settings = json.loads(read_bytes(f"{after.uri}/config.json"))
    settings["labels"] = Labels(("pet", "background", "fur"), (1, 2, 3)).to_json()
    write_bytes(f"{after.uri}/config.json", json.dumps(settings).encode())
    with pytest.raises(InputError, match="fur"):
        run(before, after)
    with pytest.raises(InputError, match="lies in --results"):
        compare(CompareConfig(results=(before.uri, before.uri), output=f"{before.uri}/compared"))
    for results in ((), ("a",), ("a", ""), ("a", "b", "c")):
        with pytest.raises(InputError, match="--results takes two"):
            CompareConfig(results=results)

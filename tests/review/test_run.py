"""A review of a segmentation that was made without a model."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segray.data.pairs_table import read_manifest
from segray.errors import InputError
from segray.pixels.labels import Labels
from segray.pixels.mask_files import read_mask
from segray.results.segmentation import Segmentation
from segray.review.config import ReviewConfig
from segray.review.ranking import Ranked
from segray.review.run import Review, review
from segray.review.run import _rank as rank
from segray.storage import lock
from segray.storage.files import child_names, read_bytes, write_bytes
from segray.storage.listing import Shard, list_pages
from segray.storage.lock import LOCK
from tests.segmentations import LABELS, Made, make_segmentation
from tests.support import draw_picture, encode

KEYS = [f"{number}.png" for number in range(12)]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Images that are the worse the later they come, each of other noise."""
    made = make_segmentation(str(tmp_path), KEYS)
    for number, (uri, mask) in enumerate(made.masks.items()):
        write_bytes(uri, encode(draw_picture(*mask.shape, number), "PNG"))
        made.expected[uri] = 0.9 - number / 20
    segment(made)
    return made


def segment(made: Made) -> None:
    """Make the manifest and the rows those of the images as they are now."""
    for folder in ("manifest", "results"):
        for file in Path(made.uri, folder).iterdir():
            file.unlink()
    pages = list_pages(Shard(made.images))
    made.list([entry for page in pages for entry in page.entries])
    made.write_rows(made.entries)


def run(made: Made, tmp_path: Path, **settings: Any) -> Review:
    return review(ReviewConfig(results=made.uri, output=f"{tmp_path}/review", **settings))


def names(tmp_path: Path) -> list[str]:
    pairs = read_manifest(f"{tmp_path}/review/pairs.csv")["train"]
    return [Path(pair.image).name for pair in pairs]


def test_the_worst_images_become_pairs_of_mask_values(made: Made, tmp_path: Path) -> None:
    result = run(made, tmp_path, count=5)

    assert set(names(tmp_path)) == {"11.png", "10.png", "9.png", "8.png", "7.png"}
    pairs = read_manifest(f"{tmp_path}/review/pairs.csv")["train"]
    assert len(pairs) == 5
    for pair in pairs:
        assert Path(pair.mask).name.startswith(f"{Path(pair.image).stem}-")
        with Image.open(pair.mask) as picture:
            colours = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(colours, np.array(LABELS.palette)[made.masks[pair.image]])
        values = read_mask(read_bytes(pair.mask)).values
        np.testing.assert_array_equal(LABELS.to_class_ids(values), made.masks[pair.image])
    for name, count in result.classes.items():
        ids = [made.masks[pair.image] == LABELS.names.index(name) for pair in pairs]
        assert count == sum(there.any() for there in ids)


def test_images_that_are_labelled_are_left_out(made: Made, tmp_path: Path) -> None:
    Path(f"{tmp_path}/linked").symlink_to(made.images)
    tables = [f"{tmp_path}/of-training.csv", f"{tmp_path}/of-first-review.csv"]
    write_bytes(tables[0], b"image,mask,split\nimages/11.png,11-mask.png,validation\n")
    write_bytes(tables[1], b"image,mask\nlinked/9.png,9-mask.png\n")

    result = run(made, tmp_path, count=3, labelled=tuple(tables))

    assert set(names(tmp_path)) == {"10.png", "8.png", "7.png"}
    assert result.labelled == 2


def test_a_segmentation_of_an_earlier_version_is_refused(made: Made, tmp_path: Path) -> None:
    settings = json.loads(read_bytes(f"{made.uri}/config.json"))
    del settings["usual_shares"]
    write_bytes(f"{made.uri}/config.json", json.dumps(settings).encode())
    with pytest.raises(InputError, match="earlier version"):
        run(made, tmp_path)
    assert not Path(f"{tmp_path}/review").exists()


def test_images_that_are_all_labelled_are_nothing_to_review(made: Made, tmp_path: Path) -> None:
    rows = [f"images/{key},{key}-mask.png" for key in KEYS]
    write_bytes(f"{tmp_path}/pairs.csv", "\n".join(["image,mask", *rows]).encode())
    with pytest.raises(InputError, match="not labelled"):
        run(made, tmp_path, labelled=(f"{tmp_path}/pairs.csv",))


def test_masks_of_colours_are_coloured(made: Made, tmp_path: Path) -> None:
    labels = Labels.parse(["pet=#804080", "background=#000000", "border=#ffffff"])
    settings = json.loads(read_bytes(f"{made.uri}/config.json"))
    text = json.dumps(settings | {"labels": labels.to_json()})
    write_bytes(f"{made.uri}/config.json", text.encode())

    run(made, tmp_path, count=2)

    for pair in read_manifest(f"{tmp_path}/review/pairs.csv")["train"]:
        values = read_mask(read_bytes(pair.mask), coloured=True).values
        np.testing.assert_array_equal(labels.to_class_ids(values), made.masks[pair.image])


def test_no_two_images_are_alike(made: Made, tmp_path: Path) -> None:
    worst = [f"{made.images}/{key}" for key in ("11.png", "10.png", "9.png")]
    # The same picture in the size of each image, once a little brighter.
    picture = Image.fromarray(draw_picture(40, 60, 5))
    for uri, light in zip(worst, (0, 0, 60), strict=True):
        height, width = made.masks[uri].shape
        pixels = np.asarray(picture.resize((width, height)))
        write_bytes(uri, encode(pixels // 2 + light if light else pixels, "PNG"))
    segment(made)

    result = run(made, tmp_path, count=4)

    assert set(names(tmp_path)) == {"11.png", "8.png", "7.png", "6.png"}
    assert result.alike == 2


def test_images_of_one_colour_are_alike(made: Made, tmp_path: Path) -> None:
    for number, key in enumerate(("11.png", "10.png", "9.png")):
        uri = f"{made.images}/{key}"
        write_bytes(uri, encode(np.full((*made.masks[uri].shape, 3), 90 * number, np.uint8), "PNG"))
    segment(made)
    result = run(made, tmp_path, count=4)
    assert set(names(tmp_path)) == {"11.png", "8.png", "7.png", "6.png"}
    assert result.alike == 2


def test_images_of_the_same_colours_are_not_alike_for_that(made: Made, tmp_path: Path) -> None:
    """As photographs of a field: much green, and what differs is small."""
    for number, (uri, mask) in enumerate(made.masks.items()):
        texture = draw_picture(*mask.shape, number) // 8
        write_bytes(uri, encode(texture + np.array([20, 200, 40], np.uint8), "PNG"))
    segment(made)

    result = run(made, tmp_path, count=12)

    assert len(names(tmp_path)) == 12
    assert result.alike == 0


def test_an_image_whose_name_no_format_can_hold_is_passed_over(made: Made, tmp_path: Path) -> None:
    uri = f"{made.images}/11\n.png"
    write_bytes(uri, read_bytes(f"{made.images}/11.png"))
    made.masks[uri], made.expected[uri] = made.masks[f"{made.images}/11.png"], 0.1
    segment(made)

    result = run(made, tmp_path, count=2)

    assert set(names(tmp_path)) == {"11.png", "10.png"}
    assert result.failed == 1
    assert len(result.reason.splitlines()) == 1


def test_an_image_that_has_changed_does_not_get_its_old_mask(made: Made, tmp_path: Path) -> None:
    uri = f"{made.images}/11.png"
    write_bytes(uri, encode(draw_picture(*made.masks[uri].shape, 99), "PNG"))
    result = run(made, tmp_path, count=2)
    assert set(names(tmp_path)) == {"10.png", "9.png"}
    assert result.failed == 1
    assert "11.png" in result.reason


def test_a_store_that_does_not_answer_is_given_up(made: Made, tmp_path: Path) -> None:
    gone = [f"{number}-gone.png" for number in range(40)]
    made.add(gone)
    for key in gone:
        made.expected[f"{made.images}/{key}"] = 0.1
    made.write_rows(made.entries)
    with pytest.raises(InputError, match=r"-gone\.png.*no such file"):
        run(made, tmp_path, count=5)


@pytest.mark.parametrize("name", ["notes.txt", "masks/of-an-interrupted-review.png"])
def test_a_folder_with_files_is_left_as_it_is(made: Made, tmp_path: Path, name: str) -> None:
    write_bytes(f"{tmp_path}/review/{name}", b"mine")
    with pytest.raises(InputError, match="not empty"):
        run(made, tmp_path, count=2)
    files = [path for path in Path(tmp_path, "review").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [b"mine"]


def test_images_that_are_gone_are_passed_over(made: Made, tmp_path: Path) -> None:
    Path(f"{made.images}/11.png").unlink()
    write_bytes(f"{made.images}/10.png", b"no image")

    result = run(made, tmp_path, count=3)

    assert set(names(tmp_path)) == {"9.png", "8.png", "7.png"}
    assert result.failed == 2


def test_images_with_a_damaged_mask_are_passed_over(made: Made, tmp_path: Path) -> None:
    damaged = [entry for entry in made.entries if entry.uri.endswith("/11.png")]
    for file in Path(made.uri, "results").iterdir():
        file.unlink()
    made.write_rows([entry for entry in made.entries if entry not in damaged])
    made.write_rows(damaged, "bad", mask={"bytes": b"\x89PNG\r\n\x1a\nno", "path": "x"})

    result = run(made, tmp_path, count=2)

    assert set(names(tmp_path)) == {"10.png", "9.png"}
    assert result.failed == 1


def test_more_images_than_there_are(made: Made, tmp_path: Path) -> None:
    run(made, tmp_path, count=100)
    assert sorted(names(tmp_path)) == sorted(KEYS)


def test_masks_that_may_have_been_corrected_are_never_overwritten(
    made: Made, tmp_path: Path
) -> None:
    run(made, tmp_path, count=2)
    before = {path: path.read_bytes() for path in (tmp_path / "review").rglob("*.png")}

    with pytest.raises(InputError, match="give another --output"):
        run(made, tmp_path, count=5)

    assert {path: path.read_bytes() for path in (tmp_path / "review").rglob("*.png")} == before


def test_a_review_whose_lock_was_taken_writes_nothing(
    made: Made, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.1)
    output = s3("taken-review") + "/out"

    def rank_late(segmentation: Segmentation, *rest: Any) -> Ranked:
        write_bytes(f"{output}/{LOCK}", b'{"run": "of someone else"}')
        time.sleep(1)
        return rank(segmentation, *rest)

    monkeypatch.setattr("segray.review.run._rank", rank_late)
    with pytest.raises(InputError, match="was taken by another run"):
        review(ReviewConfig(results=made.uri, output=output))
    assert child_names(output) == [LOCK]


@pytest.mark.parametrize("place", ["segmented", "images"])
def test_an_output_that_the_next_segmentation_would_meet_is_refused(made: Made, place: str) -> None:
    folder = {"segmented": made.uri, "images": made.images}[place]
    with pytest.raises(InputError, match="give another --output"):
        review(ReviewConfig(results=made.uri, output=f"{folder}/review"))
    assert not Path(folder, "review").exists()


def test_a_record_that_cannot_be_read_is_no_other_folder(made: Made, tmp_path: Path) -> None:
    settings = Path(made.uri, "config.json")
    settings.unlink()
    settings.mkdir()
    with pytest.raises(InputError, match=r"cannot read .*config.json"):
        run(made, tmp_path, count=2)

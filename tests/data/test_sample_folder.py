"""The sample data set on disk: complete, paired, and drawn once."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segray.data import sample
from segray.data.sample import write_sample
from segray.errors import InputError
from segray.storage.files import child_names, read_bytes
from segray.storage.listing import list_entries


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of the usual number, for speed."""
    monkeypatch.setattr(sample, "LABELLED", 10)
    monkeypatch.setattr(sample, "UNLABELLED", 2)


def test_every_image_to_learn_from_has_a_trimap_of_its_size(tmp_path: Path) -> None:
    write_sample(str(tmp_path))
    images = child_names(str(tmp_path / "images"))
    masks = child_names(str(tmp_path / "masks"))
    assert len(images) == 10
    assert [Path(name).stem for name in images] == [Path(name).stem for name in masks]
    for image_name, mask_name in zip(images, masks, strict=True):
        with (
            Image.open(tmp_path / "images" / image_name) as image,
            Image.open(tmp_path / "masks" / mask_name) as mask,
        ):
            assert image.format == "JPEG"
            assert image.size == mask.size
            assert set(np.unique(np.asarray(mask))) == {1, 2, 3}


def test_the_images_to_segment_are_others(tmp_path: Path) -> None:
    write_sample(str(tmp_path))
    new = {(tmp_path / "new" / name).read_bytes() for name in child_names(str(tmp_path / "new"))}
    known = {path.read_bytes() for path in (tmp_path / "images").iterdir()}
    assert len(new) == 2
    assert not new & known


def test_a_complete_folder_is_left_alone(tmp_path: Path, lines: list[str]) -> None:
    write_sample(str(tmp_path))
    assert len(lines) == 1
    assert "12 sample images" in lines[0]
    assert str(tmp_path) in lines[0]
    before = list_entries(str(tmp_path))
    write_sample(str(tmp_path))
    assert lines[1:] == [f"no data given: taking the sample images in {tmp_path}"]
    assert list_entries(str(tmp_path)) == before


def test_an_interrupted_drawing_is_done_again_with_the_same_result(tmp_path: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    write_sample(str(tmp_path))
    whole = files()
    (tmp_path / "README.txt").unlink()
    (tmp_path / "new" / child_names(str(tmp_path / "new"))[0]).unlink()
    (tmp_path / "images" / child_names(str(tmp_path / "images"))[0]).write_bytes(b"half")
    write_sample(str(tmp_path))
    assert files() == whole


def test_the_sample_can_be_drawn_into_a_bucket(s3: Callable[[str], str]) -> None:
    folder = s3("sample-folder") + "/sample"
    write_sample(folder)
    assert len(list_entries(folder)) == 10 + 10 + 2 + 1
    new = child_names(folder + "/new")
    image = Image.open(io.BytesIO(read_bytes(f"{folder}/new/{new[0]}")))
    image.load()
    assert image.format == "JPEG"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"a file")
    with pytest.raises(InputError, match="taken"):
        write_sample(str(tmp_path / "taken"))

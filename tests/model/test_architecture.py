"""The settings of a network, and the input resolutions that users may give."""

import pytest

from segray.errors import InputError
from segray.model.architecture import Architecture, ImageSize, check_image_size, split_size


@pytest.mark.parametrize(
    ("size", "near"),
    [
        (-32, "32"),
        (0, "32"),
        (31, "32"),
        (65, "64"),
        (100, "96"),
        (16416, "16384"),
        ((352, 500), "352 512"),
        ((100, 100), "96"),
        ((0, 64), "32 64"),
    ],
)
def test_refuses_sides_that_are_no_multiples_of_32(size: ImageSize, near: str) -> None:
    with pytest.raises(InputError, match=rf"^--image-size {split_size(size)[0]}[^\n]* {near}$"):
        check_image_size(size)


@pytest.mark.parametrize("size", [32, 224, 16384, (352, 480), (32, 16384)])
def test_takes_multiples_of_32(size: ImageSize) -> None:
    check_image_size(size)


def test_a_square_is_told_by_one_number() -> None:
    assert Architecture(3, 64, 64).to_json()["image_size"] == 64
    assert Architecture(3, 64, 96).to_json()["image_size"] == (64, 96)

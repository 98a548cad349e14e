"""Pictures for people: the right colours in the right places."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segray.pixels.labels import IGNORED, Labels
from segray.pixels.pictures import colour_mask, draw_sheet

LABELS = Labels.parse(["pet=1", "background=2", "border=3"])


def plain(colour: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    return np.full((30, 90, 3), colour, dtype=np.uint8)


def places(sheet: Image.Image, colour: tuple[int, int, int]) -> npt.NDArray[np.intp]:
    """The (row, column) of every pixel of a colour, [N, 2]."""
    return np.argwhere((np.asarray(sheet) == colour).all(axis=-1))


def test_a_mask_takes_the_colours_of_its_classes_and_grey_where_ignored() -> None:
    mask = np.array([[0, 1], [2, IGNORED]], dtype=np.uint8)
    coloured = colour_mask(mask, LABELS)
    assert coloured.dtype == np.uint8
    first, second, third = (list(colour) for colour in LABELS.palette)
    assert coloured.tolist() == [[first, second], [third, [128, 128, 128]]]


def test_a_sheet_shows_every_picture_in_its_row_and_column() -> None:
    colours = [[(1, 2, 3), (50, 60, 70), (9, 200, 9)], [(200, 3, 90), (77, 0, 77), (0, 77, 0)]]
    rows = [[plain(colour) for colour in row] for row in colours]
    sheet = draw_sheet(rows, ["image", "truth", "prediction"], LABELS)
    found = [[places(sheet, colour) for colour in row] for row in colours]
    assert all(len(pixels) == 30 * 90 for row in found for pixels in row)
    for row in found:
        left, middle, right = (pixels.mean(axis=0) for pixels in row)
        assert left[0] == middle[0] == right[0]
        assert left[1] < middle[1] < right[1]
    assert found[0][0].max(axis=0)[0] < found[1][0].min(axis=0)[0]


def test_a_sheet_has_titles_above_and_a_legend_below() -> None:
    tiles = [[plain((1, 2, 3)), plain((50, 60, 70)), plain((9, 200, 9))]]
    sheet = draw_sheet(tiles, ["image", "truth", "prediction"], LABELS)
    first_row, last_row = places(sheet, (1, 2, 3))[[0, -1], 0]
    ink = np.asarray(sheet.convert("L"))[:first_row] < 128
    for colour in ((1, 2, 3), (50, 60, 70), (9, 200, 9)):
        assert ink[:, places(sheet, colour)[:, 1]].any()
    legend = [places(sheet, colour) for colour in LABELS.palette]
    assert all(len(patch) > 50 for patch in legend)
    assert all(patch[:, 0].min() > last_row for patch in legend)
    assert legend[0][:, 1].max() < legend[1][:, 1].min()


@pytest.mark.parametrize(
    "names", [[f"class_{i}" for i in range(255)], ["été", "猫", "x" * 63, "y"]]
)
def test_a_legend_takes_as_many_lines_as_it_needs(names: list[str]) -> None:
    labels = Labels.parse([f"{name}={i}" for i, name in enumerate(names)])
    short = draw_sheet([[plain((1, 2, 3))] * 3], ["a", "b", "c"], LABELS)
    sheet = draw_sheet([[plain((1, 2, 3))] * 3], ["a", "b", "c"], labels)
    assert sheet.width == short.width
    for colour in labels.palette:
        patch = places(sheet, colour)
        assert len(patch) > 50
        assert patch[:, 1].max() < sheet.width - 10


def test_a_caption_stands_beside_its_row_and_fits_whatever_its_length() -> None:
    rows = [[plain((1, 2, 3)), plain((200, 3, 90))], [plain((50, 60, 70)), plain((77, 0, 77))]]
    bare = draw_sheet(rows, ["image", "truth"], LABELS)
    sheet = draw_sheet(rows, ["image", "truth"], LABELS, ["", "IoU 0.5\n" + "very long name " * 99])
    assert sheet.height == bare.height
    assert np.array_equal(np.asarray(sheet)[:, : bare.width], np.asarray(bare))
    ink = np.argwhere(np.asarray(sheet.convert("L"))[:, bare.width :] < 128)
    second_row = places(sheet, (50, 60, 70))[:, 0]
    assert second_row.min() <= ink[:, 0].min()
    assert ink[:, 0].max() <= second_row.max()
    assert ink[:, 1].max() < sheet.width - bare.width - 1

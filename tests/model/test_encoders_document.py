"""The table of encoders in docs/training.md has the sizes and costs that are computed."""

import re
from pathlib import Path

import pytest

from segray.model.counts import count_multiplications, count_weights
from segray.model.encoders import ENCODERS, EncoderName
from tests.support import square

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
SECTION = TEXT.partition("\n## Encoders\n")[2].partition("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("| `")
][1:]
CELLS = {row[0].removesuffix(" (default)").strip("`"): row[1:] for row in ROWS}


def test_each_encoder_has_a_row() -> None:
    assert list(CELLS) == list(ENCODERS)
    [default] = [row[0] for row in ROWS if row[0].endswith("(default)")]
    assert default == "`MobileNetV2` (default)"


@pytest.mark.parametrize("name", ENCODERS)
def test_its_figures_are_those_of_the_network(name: EncoderName) -> None:
    """With three classes and the slim decoder; of a megapixel, which is a million pixels."""
    network = square(3, 1024, encoder=name, decoder="slim")
    weights, all_weights, multiplications, *rates, file = CELLS[name]

    assert weights == f"{ENCODERS[name].weights / 1e6:.1f}"
    assert all_weights == f"{count_weights(network) / 1e6:.1f}"
    by_pixel = count_multiplications(network) / 1024**2
    assert multiplications == f"{by_pixel / 1e3:.1f}"
    assert len(rates) == 3
    assert all(float(rate) > 0 for rate in rates)
    [named] = re.findall(r"with `([^` ]*)`", file) or re.findall(r"^`([^` ]*)`$", file)
    if file.startswith(("with", "the same with")):
        named = CELLS["MobileNetV2"][-1].strip("`").replace("1.0", named)
    assert named == Path(ENCODERS[name].weights_file).name

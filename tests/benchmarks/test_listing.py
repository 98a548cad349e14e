"""The benchmark of listing, at its smallest."""

import json
from pathlib import Path

import pytest

from tests.benchmarks import run_benchmark


@pytest.mark.slow
def test_a_search_finds_all_keys_and_a_resume_what_is_missing(tmp_path: Path) -> None:
    run_benchmark("listing.py", "--keys", "20000", "--json", str(tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["search"]["images"], figures["search"]["missing"]) == (20_000, 20_000)
    assert (figures["resume"]["images"], figures["resume"]["missing"]) == (20_000, 200)
    assert figures["search"]["first"] < figures["search"]["seconds"]
    assert 0 < figures["resume"]["memory"] < 500

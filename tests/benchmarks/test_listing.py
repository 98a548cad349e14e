"""The benchmark of listing, at its smallest."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_a_search_finds_all_keys_and_a_resume_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/listing.py", "--keys", "20000"]
    result = subprocess.run(
        [*command, "--json", str(tmp_path / "figures.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["search"]["images"], figures["search"]["missing"]) == (20_000, 20_000)
    assert (figures["resume"]["images"], figures["resume"]["missing"]) == (20_000, 200)
    assert figures["search"]["first"] < figures["search"]["seconds"]
    assert 0 < figures["resume"]["memory"] < 500

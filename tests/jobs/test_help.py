"""Each job's --help explains each of its flags."""

import dataclasses
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segray.bulk.config import SegmentConfig
from segray.comparison.config import CompareConfig
from segray.data.oxford_pets import OxfordPetsConfig
from segray.evaluation.config import EvaluateConfig
from segray.export.config import ExportConfig
from segray.review.config import ReviewConfig
from segray.training.config import TrainConfig
from tests.jobs.conftest import JOBS

CONFIGS: dict[str, Any] = {
    "compare": CompareConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "prepare": OxfordPetsConfig,
    "review": ReviewConfig,
    "segment": SegmentConfig,
    "train": TrainConfig,
}


def read_help(text: str) -> dict[str, str]:
    """What is said of each flag, by its name, without its default."""
    said: dict[str, list[str]] = {}
    flag = ""
    for line in text.splitlines():
        content = line[2:].rstrip("│| ")
        if found := re.match(r"--([\w-]+)", content):
            # What it takes is one space behind it, and what is said of it at least two.
            flag, content = found[1], "  " + content.partition("  ")[2]
            said[flag] = []
        elif line.startswith(("╭", "╰", "+")):
            flag = ""
        # Many choices go on at the left in the next line.
        if flag and content.startswith("  "):
            said[flag] += content.split()
    return {flag: " ".join(words).partition("(default:")[0] for flag, words in said.items()}


def test_there_are_no_other_jobs() -> None:
    assert set(CONFIGS) == {path.stem for path in JOBS.glob("*.py")}


@pytest.mark.parametrize("job", CONFIGS)
def test_each_flag_has_its_sentence(
    job: str, tmp_path: Path, call_job: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    command = ["oxford-pets"] if job == "prepare" else []
    result = call_job(job, *command, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stderr == ""
    said = read_help(result.stdout)
    names = {field.name.replace("_", "-") for field in dataclasses.fields(CONFIGS[job])}
    assert names <= said.keys()
    assert not [name for name, text in said.items() if len(text.split()) < 3]

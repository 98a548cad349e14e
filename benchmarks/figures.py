"""Figures: what every benchmark says of its machine, and the JSON file that it writes."""

import json
import os
import sys
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("segray", "ray", "tensorflow", "keras", "onnxruntime", "numpy", "pillow", "pyarrow")


def describe_machine() -> str:
    """The cores, the versions of packages and the date, in a line."""
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{os.cpu_count()} cores; {versions}; {date.today()}"


def write_figures(path: str | None, config: Any, **figures: object) -> None:
    """Write the figures of a benchmark with all that is needed to repeat it.

    Args:
        path: the value of --json; None to write nothing.
        config: the settings, a dataclass.
        figures: JSON-ready, by their names.
    """
    if path is None:
        return
    document = {
        "command": sys.argv,
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in _PACKAGES},
        "settings": asdict(config),
        **figures,
    }
    Path(path).write_text(json.dumps(document, indent=2) + "\n")

"""The direction of the imports.

jobs -> training -> evaluation | bulk | export -> model -> data -> storage -> pixels.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each part of the house may import: parts of segray, and the libraries that belong to it.
ALLOWED_PARTS = {
    "clock": set(),
    "errors": set(),
    "progress": set(),
    "ticker": set(),
    "pixels": {"errors"},
    "storage": {"errors", "pixels"},
    "version": set(),
    "packages": {"version"},
    "nodes": {"errors", "ticker"},
    "data": {"errors", "pixels", "progress", "storage"},
    "model": {"errors", "packages", "pixels", "storage"},
    "evaluation": {"data", "errors", "nodes", "packages", "pixels", "storage", "model", "progress"},
    "training": {
        "data",
        "errors",
        "nodes",
        "packages",
        "pixels",
        "storage",
        "model",
        "evaluation",
        "progress",
        "ticker",
    },
    "bulk": {
        "clock",
        "data",
        "errors",
        "nodes",
        "packages",
        "page",
        "pixels",
        "storage",
        "model",
        "progress",
        "ticker",
    },
    "results": {"errors", "pixels", "storage"},
    "page": set(),
    "export": {"data", "errors", "nodes", "pixels", "results", "storage", "progress", "version"},
    "review": {"data", "errors", "pixels", "progress", "results", "storage"},
    "comparison": {
        "data",
        "errors",
        "page",
        "pixels",
        "progress",
        "results",
        "storage",
        "version",
    },
    "job": {"errors"},
    "flags": {"job", "storage"},
    "__init__": {"clock", "errors", "model", "version"},
}
HEAVY = {
    "ray": {"evaluation", "training", "bulk", "export", "job", "nodes"},
    "keras": {"model", "training"},
    "tensorflow": {"model", "training"},
    "onnxruntime": {"model"},
    "fsspec": {"storage"},
    "s3fs": {"storage"},
    "botocore": {"storage"},
    "pyarrow": {
        "data",
        "storage",
        "results",
        "evaluation",
        "training",
        "bulk",
        "export",
        "comparison",
        "review",
    },
    "pandas": set(),
    "matplotlib": {"evaluation", "training"},
    "PIL": {"data", "pixels", "model", "evaluation", "training", "export", "comparison"},
    "pycocotools": {"export"},
    "tifffile": {"pixels"},
    "cc3d": {"pixels"},
}


def imported_names(path: Path) -> set[str]:
    """Every absolute name that a file imports, anywhere in it; no import may be relative."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(name: str) -> str:
    """The part of segray that an imported name lies in."""
    parts = name.split(".")
    return parts[1] if (ROOT / "segray" / parts[1]).is_dir() or parts[1] in ALLOWED_PARTS else ""


SOURCES = sorted((ROOT / "segray").rglob("*.py"))


def test_every_part_is_known() -> None:
    found = {path.relative_to(ROOT / "segray").parts[0].removesuffix(".py") for path in SOURCES}
    assert found == set(ALLOWED_PARTS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    part = path.relative_to(ROOT / "segray").parts[0].removesuffix(".py")
    for name in imported_names(path):
        library = name.split(".")[0]
        if library in HEAVY:
            assert part in HEAVY[library], f"{path} imports {library}"
        if library == "segray" and (other := part_of(name)):
            assert other == part or other in ALLOWED_PARTS[part], f"{path} imports {name}"


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports within functions count: they hide a circle and do not break it."""

    def module_of(path: Path) -> str:
        parts = path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts).removesuffix(".__init__")

    modules = {module_of(path) for path in SOURCES}
    imports = {
        module_of(path): {
            name if name in modules else name.rpartition(".")[0] for name in imported_names(path)
        }
        & modules
        for path in SOURCES
    }
    assert len(list(TopologicalSorter(imports).static_order())) == len(modules)


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_jobs_are_thin(path: Path) -> None:
    """A job serves one verb, leaves the heavy libraries to the package, and fits on a screen."""
    names = imported_names(path)
    parts = {part_of(name) for name in names if name.startswith("segray.")}
    assert len(parts & {"training", "evaluation", "bulk", "export"}) <= 1
    assert not {name.split(".")[0] for name in names} & set(HEAVY)
    assert len(path.read_text().splitlines()) <= 70

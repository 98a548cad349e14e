"""Packages: the versions that a record of a run names."""

from importlib.metadata import PackageNotFoundError, version

from segray.version import __version__

# On a GPU node another package brings the same modules.
_STANDS_IN = {"onnxruntime": "onnxruntime-gpu"}


def package_versions(*names: str) -> dict[str, str]:
    """The versions of segray and of other packages, by name, as records keep them.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    # Not by its metadata: segray need not be installed, a job may bring its folder along.
    return {"segray": __version__, **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        if name not in _STANDS_IN:
            raise
        return version(_STANDS_IN[name])

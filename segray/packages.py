"""Packages: the versions that the record of a run contains."""

from importlib.metadata import PackageNotFoundError, version

from segray.version import __version__

# On GPU nodes another package provides the same modules.
_STANDS_IN = {"onnxruntime": "onnxruntime-gpu"}


def package_versions(*names: str) -> dict[str, str]:
    """Return the versions of segray and of other packages by name, for records.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    # Not from metadata: segray need not be installed, as a job may bring its folder along.
    return {"segray": __version__, **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        if name not in _STANDS_IN:
            raise
        return version(_STANDS_IN[name])

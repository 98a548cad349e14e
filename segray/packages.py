"""Packages: the versions that a record of a run names."""

from importlib.metadata import version


def package_versions(*names: str) -> dict[str, str]:
    """The versions of segray and of other packages, by name, as records keep them.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    # Here, because segray's own first import leads to this file. Not by its metadata: segray need
    # not be installed, a job may bring its folder along.
    from segray import __version__

    return {"segray": __version__, **{name: version(name) for name in names}}

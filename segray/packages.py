"""Packages: which versions of them are at work."""

from importlib.metadata import version


def package_versions(*names: str) -> dict[str, str]:
    """The versions of segray and of other packages, by name, as records keep them.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    from segray import __version__

    # segray itself need not be installed: a job may bring its folder along.
    return {"segray": __version__, **{name: version(name) for name in names}}

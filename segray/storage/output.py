"""An output folder: it belongs to one kind of job, and records what it was started with."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from segray.errors import InputError
from segray.storage.files import child_names, read_bytes, write_bytes
from segray.storage.lock import LOCK
from segray.storage.uri import join_uri

#: The file in an output folder that records what it was started with.
SETTINGS = "config.json"


@dataclass(frozen=True)
class Output:
    """The output folder of a job.

    Attributes:
        uri: its absolute URI.
        kind: what such a folder holds, such as ``training run``.
        names: the names of the files and folders that may be in it before it has `SETTINGS`.
        later: the names of those that may be in it as well afterwards; None: any.
    """

    uri: str
    kind: str
    names: Collection[str] = ()
    later: Collection[str] | None = None

    @property
    def settings_uri(self) -> str:
        """The URI of the file with the settings."""
        return join_uri(self.uri, SETTINGS)

    def read_settings(self, keys: Mapping[str, type]) -> dict[str, Any] | None:
        """Return the settings that the folder was started with; None if it is new.

        Args:
            keys: the keys that the settings must have, and the types of their values.

        Raises:
            InputError: the folder holds something else, or the settings are damaged.
        """
        names = child_names(self.uri)
        if SETTINGS not in names:
            self._check_names(names, self.names)
            return None
        if self.later is not None:
            self._check_names(names, (*self.names, *self.later, SETTINGS))
        try:
            settings = json.loads(read_bytes(self.settings_uri))
        except ValueError:
            settings = None
        if not isinstance(settings, dict) or not all(
            key in settings and isinstance(settings[key], kind) for key, kind in keys.items()
        ):
            article = "an" if self.kind[0] in "aeiou" else "a"
            raise InputError(
                f"{self.settings_uri} is no record of {article} {self.kind}: give another "
                "--output, or empty the folder"
            )
        return settings

    def check(self) -> None:
        """Refuse a folder that holds anything but `names`.

        Raises:
            InputError: it does.
        """
        self._check_names(child_names(self.uri), self.names)

    def _check_names(self, names: Collection[str], own: Collection[str]) -> None:
        foreign = [name for name in names if name not in (*own, LOCK)]
        if foreign:
            raise InputError(
                f"{self.uri} holds something that is no {self.kind} ({', '.join(foreign[:3])}): "
                "give another --output, or empty the folder"
            )

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Record what the folder is started with. From then on it belongs to this kind of job.

        Raises:
            InputError: the file cannot be written.
        """
        write_bytes(self.settings_uri, json.dumps(settings, indent=2).encode())

    def refuse(self, name: str, before: Any, now: Any, remedy: str = "delete that folder") -> None:
        """Refuse to continue with another setting than the folder was started with.

        Args:
            name: the name of the setting, such as --mask-size.
            before: the setting that the folder was started with.
            now: that of this job.
            remedy: what may be done instead of another --output.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.uri} was started with {_spell(name, before)}, and this {self.kind} has "
            f"{_spell(name, now)}: give another --output, or {remedy}"
        )


def _spell(name: str, setting: Any) -> str:
    """Write a setting as its flag has it."""
    if isinstance(setting, bool) and name.startswith("--"):
        return name if setting else f"--no-{name.removeprefix('--')}"
    if isinstance(setting, list | tuple):
        setting = " ".join(map(str, setting))
    return f"{name} {'none' if setting is None else setting}"

"""Flags: a job's configuration, read from the command line and shown in groups by --help."""

import inspect
from collections.abc import Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any, TypeVar

import tyro
from tyro.extras import subcommand_cli_from_dict

from segray.job import discard_output, show_log
from segray.storage.access import S3Access

Config = TypeVar("Config")

_VERBOSE = (
    "Print the job's debugging messages and what Ray prints, each line of the job with its time, "
    "level and module."
)


def read_flags(
    kind: type[Config],
    default: Config | None = None,
    command: str | None = None,
    arguments: Sequence[str] | None = None,
) -> Config:
    """Read the flags of a job from the command line, and apply those that all jobs have.

    --help and misspelt flags end the process.

    Args:
        kind: a dataclass with a field for each flag, whose docstring is the description of the job.
            If it derives from other dataclasses, each of those is a group of flags in --help,
            called like its class; the last one comes first, as among the fields of a dataclass.
        default: the values of the flags that are not given; by default those of the class.
        command: a word that has to come before the flags.
        arguments: the words of the command line, by default those of this process.

    Raises:
        InputError: `kind` refuses the values of the flags.
    """
    groups = [base for base in reversed(kind.__bases__) if is_dataclass(base)]
    parts: list[Any] = [("config", Annotated[kind, tyro.conf.arg(name="")])]
    if default:
        parts = [(*parts[0], field(default=default))]
    if groups:
        given = default or kind()
        parts = [(_title(group), group, field(default=_take(group, given))) for group in groups]
    parts += [
        ("s3", S3Access, field(default=S3Access())),
        ("verbose", Annotated[bool, tyro.conf.arg(help=_VERBOSE)], field(default=False)),
    ]
    flags = make_dataclass("Flags", parts)
    flags.__doc__ = inspect.getdoc(kind) or ""
    # Groups are not part of the flags' names.
    settings = (tyro.conf.OmitArgPrefixes,)
    read: Any
    try:
        if command is None:
            read = tyro.cli(flags, args=arguments, config=settings)
        else:
            read = subcommand_cli_from_dict(
                {command: flags},
                description=flags.__doc__.partition("\n")[0],
                args=arguments,
                config=settings,
            )
    except BrokenPipeError:  # --help | head
        discard_output()
        raise SystemExit(0) from None
    read.s3.set_environment()
    show_log(read.verbose)
    if not groups:
        config: Config = read.config
        return config
    values = [vars(getattr(read, _title(group))) for group in groups]
    return kind(**{name: value for part in values for name, value in part.items()})


def _title(group: type) -> str:
    return group.__name__.removesuffix("Flags").lower()


def _take(group: type, config: Any) -> Any:
    return group(**{item.name: getattr(config, item.name) for item in fields(group)})

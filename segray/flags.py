"""Flags: a job's configuration, read from the command line and shown in groups by --help."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from itertools import pairwise
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import tyro
from tyro.extras import subcommand_cli_from_dict

from segray.job import discard_output, show_log
from segray.storage.access import S3Access

Config = TypeVar("Config")

_VERBOSE = "Print debugging messages and Ray's output, each line with time, level and module."


def read_flags(
    kind: type[Config],
    default: Config | None = None,
    command: str | None = None,
    arguments: Sequence[str] | None = None,
) -> Config:
    """Read the flags of a job as its configuration; see `read_values`.

    Raises:
        InputError: `kind` refuses the values of the flags.
    """
    return kind(**read_values(kind, default, command, arguments))


def given_flags(arguments: Sequence[str] | None = None) -> set[str]:
    """Return the names of the flags that are on the command line, such as ``image_size``."""
    words = sys.argv[1:] if arguments is None else arguments
    names = (word[2:].partition("=")[0] for word in words if word.startswith("--"))
    return {name.replace("-", "_").removeprefix("no_") for name in names}


def read_values(
    kind: type[Config],
    default: Config | None = None,
    command: str | None = None,
    arguments: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Read the flags of a job from the command line, and apply those that all jobs have.

    --help and misspelt flags end the process.

    Args:
        kind: a dataclass with a field for each flag, described by the docstring below it. If it
            derives from other dataclasses, each of those is a group of flags in --help, called like
            its class; the last one comes first, as among the fields of a dataclass.
        default: the values of the flags that are not given; by default those of the class.
        command: a word that has to come before the flags.
        arguments: the words of the command line, by default those of this process.

    Returns:
        The values by the names of the fields, each of its type, and not checked any further.
    """
    groups = [base for base in reversed(kind.__bases__) if is_dataclass(base)]
    shapes: list[Any] = [(_title(group), _shape(group, default)) for group in groups]
    if not groups:
        shapes = [("config", Annotated[_shape(kind, default), tyro.conf.arg(name="")])]
    shapes += [
        ("s3", _shape(S3Access)),
        ("verbose", Annotated[bool, tyro.conf.arg(help=_VERBOSE)], field(default=False)),
    ]
    flags = make_dataclass("Flags", shapes)
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
    S3Access(**vars(read.s3)).set_environment()
    show_log(read.verbose)
    parts = [vars(getattr(read, _title(group))) for group in groups] or [vars(read.config)]
    return {name: value for part in parts for name, value in part.items()}


def _title(group: type) -> str:
    return group.__name__.removesuffix("Flags").lower()


def _shape(group: type, given: Any = None) -> Any:
    """Return a dataclass of a group's flags, with their descriptions, for tyro."""
    hints, texts = get_type_hints(group, include_extras=True), _read_descriptions(group)
    shape: list[Any] = []
    for item in fields(group):
        value = item.default if given is None else getattr(given, item.name)
        settings: dict[str, Any] = {"help": texts[item.name]}
        hint: Any = hints[item.name]
        if value in (None, "", ()):
            settings["help_behavior_hint"] = ""  # the text says what that means
        choices = get_args(hint)
        if NoneType in choices and all(isinstance(choice, type) for choice in choices):
            settings["metavar"] = choices[0].__name__.upper()
        annotated = Annotated[hint, tyro.conf.arg(**settings)]
        rest = () if value is MISSING else (field(default=value),)
        shape.append((item.name, annotated, *rest))
    made = make_dataclass(group.__name__, shape, kw_only=True)
    made.__doc__ = inspect.getdoc(group)
    return made


def _read_descriptions(group: type) -> dict[str, str]:
    """Return the docstrings of a class's attributes, each on one line, by their names."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(group)))
    assert isinstance(tree.body[0], ast.ClassDef)
    texts = {}
    for attribute, text in pairwise(tree.body[0].body):
        if isinstance(attribute, ast.AnnAssign) and isinstance(attribute.target, ast.Name):
            assert isinstance(text, ast.Expr)
            texts[attribute.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return texts

"""Refusals: turn the exceptions of codecs into reasons that a person understands."""

import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

# Pillow logs some of what it raises, and Python prints log records without a handler.
logging.getLogger("PIL").addHandler(logging.NullHandler())

#: The kinds of problems with an image, to group by.
Kind = Literal["empty", "unsupported", "truncated", "damaged", "too large", "too small"]


class DecodeError(Exception):
    """The bytes are not an image that segray reads; the message is the reason, on one line.

    Attributes:
        kind: the kind of problem, to group by.
    """

    def __init__(self, message: str, kind: Kind = "damaged") -> None:
        super().__init__(message)
        self.kind = kind


@contextmanager
def reasons(name: str) -> Iterator[None]:
    """Convert all exceptions of the block to `DecodeError`, and suppress its warnings.

    Args:
        name: the name of the format, such as ``JPEG``, for the message.
    """
    try:
        with _QUIET.here():
            yield
    except DecodeError:
        raise
    except Exception as error:
        # Codecs raise errors of many kinds: OSError, SyntaxError, struct.error, ...
        kind = _kind(error)
        raise DecodeError(_message(kind, name, error), kind) from error


def _kind(error: Exception) -> Kind:
    text = str(error).lower()
    cause = error.__cause__ or error  # Pillow wraps errors in headers.
    if isinstance(error, MemoryError) or text.startswith("over "):
        return "too large"
    if isinstance(cause, EOFError | IndexError | struct.error):
        return "truncated"
    if "truncated" in text or "not large enough" in text:
        return "truncated"
    if isinstance(cause, KeyError) or text.startswith(_UNSUPPORTED):
        return "unsupported"
    return "damaged"


_UNSUPPORTED = ("unsupported", "unknown", "cannot handle", "invalid value for samples")


def _message(kind: Kind, name: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, MemoryError):
        return f"there is not enough memory to decode the {name}"
    if kind == "too large":
        return f"the {name} has {text}, which is too much to decode"
    if kind == "truncated":
        return f"the {name} is truncated: it ends before its last pixel"
    if kind == "unsupported":
        text = f"unknown code {text}" if isinstance(error.__cause__, KeyError) else text
        return f"this kind of {name} is not read: {text}"
    text = text.replace("not identified by this driver", "its header makes no sense")
    return f"the {name} is damaged: {text}"


class _Quiet:
    """Suppresses warnings in threads that decode, and in no others.

    Pillow warns of damaged metadata, which do not affect the pixels. `warnings.catch_warnings`
    would change the filters of all threads, and permanently so if two threads leave it in another
    order than they entered it. A filter that asks for the current thread has neither problem: it is
    inserted first, stays there, and matches nothing in other threads.
    """

    def __init__(self) -> None:
        self._thread = threading.local()
        # Python calls `match` of the second field, which usually is a compiled expression.
        self._filter: Any = ("ignore", self, Warning, None, 0)

    @contextmanager
    def here(self) -> Iterator[None]:
        filters: Any = warnings.filters
        if not filters or filters[0] is not self._filter:
            filters.insert(0, self._filter)
        self._thread.decodes = True
        try:
            yield
        finally:
            self._thread.decodes = False

    def match(self, message: str) -> bool:
        return getattr(self._thread, "decodes", False)


_QUIET = _Quiet()

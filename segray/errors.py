"""The exception for mistakes of the user."""


class InputError(Exception):
    """Something that the user gave cannot be used.

    The message is one line that names the thing, says what is wrong with it and what to do. The job
    scripts print it and exit with status 1.
    """


def require(condition: bool, message: str) -> None:
    """Raise an `InputError` with this message unless a condition holds."""
    if not condition:
        raise InputError(message)

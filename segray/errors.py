"""The exception for mistakes of the user."""


class InputError(Exception):
    """Something that the user gave cannot be used.

    The message is one line that names the thing, says what is wrong with it and what to do. The job
    scripts print it and exit with status 1.
    """

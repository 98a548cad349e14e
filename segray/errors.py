"""The one exception that a user's mistake raises."""


class InputError(Exception):
    """Something the user gave cannot be used.

    Its message is one line that names the thing, says what is wrong with it and what to do.
    The job scripts print it and exit with status 1.
    """

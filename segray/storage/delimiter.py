"""The delimiter of a CSV table, which depends on the program and the country it comes from."""


def pick_delimiter(header: str) -> str:
    """Return the most frequent of comma, semicolon and tab.

    Args:
        header: a text whose first line has the names of the columns; only that line counts.
    """
    return max(",;\t", key=header.partition("\n")[0].count)

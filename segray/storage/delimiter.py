"""The delimiter of a table in text, which every country's spreadsheets choose for themselves."""


def pick_delimiter(header: str) -> str:
    """Comma, semicolon or tab: whichever there is most of.

    Args:
        header: the line of the columns' names; what follows it does not count.
    """
    return max(",;\t", key=header.partition("\n")[0].count)

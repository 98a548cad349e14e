"""Workers: the number of worker processes that train together, or a range of numbers."""

from typing import Any

from tyro.constructors import PrimitiveConstructorSpec

#: A fixed number, or the least and the greatest.
Workers = int | tuple[int, int]


def _parse(words: list[str]) -> Workers:
    numbers = words[0].split("..")
    if len(numbers) > 2 or not all(number.lstrip("-").isdecimal() for number in numbers):
        raise ValueError(f"{words[0]!r} is neither a number nor a range as in 1..4")
    least, *most = map(int, numbers)
    return (least, most[0]) if most else least


def _is_workers(value: Any) -> bool:
    return isinstance(value, int) or (
        isinstance(value, tuple) and [type(number) for number in value] == [int, int]
    )


def name_workers(workers: Workers) -> str:
    """Return the number or range as given on the command line: 2, or 1..4."""
    return str(workers) if isinstance(workers, int) else f"{workers[0]}..{workers[1]}"


#: The parser of the flag.
WORKERS_FLAG: PrimitiveConstructorSpec[Workers] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="N|LEAST..MOST",
    instance_from_str=_parse,
    is_instance=_is_workers,
    str_from_instance=lambda workers: [name_workers(workers)],
)

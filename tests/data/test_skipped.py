"""Skipped files: the list of them, and when there are too many."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from segray.data.skipped import Skipped, check_error_rate, write_skipped
from segray.errors import InputError
from segray.storage.files import read_bytes

SKIPPED = [
    Skipped("/data/é.jpg", "/data/é.png", 'the file is "empty"'),
    Skipped(None, "/masks/b.png", "no image below /images is named b"),
    Skipped("/data/a.jpg", None, "no mask below /masks is named a"),
    Skipped("/data/a.jpg", "/data/a.png", "is 3 x 4 pixels"),
]


@pytest.mark.parametrize("store", ["local", "s3"])
def test_the_list_has_a_line_of_json_for_each_whatever_the_order(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_bucket: Callable[[str], str]
    if store == "s3":
        make_bucket = request.getfixturevalue("s3")
        folder = make_bucket("skipped-list")
    else:
        folder = str(tmp_path)
    write_skipped(f"{folder}/run/skipped.jsonl", SKIPPED)
    write_skipped(f"{folder}/run/again.jsonl", SKIPPED[::-1])

    content = read_bytes(f"{folder}/run/skipped.jsonl")
    assert content == read_bytes(f"{folder}/run/again.jsonl")
    assert "é.jpg" in content.decode()
    rows = [json.loads(line) for line in content.decode().splitlines()]
    assert [(row["image"], row["mask"]) for row in rows] == [
        (None, "/masks/b.png"),
        ("/data/a.jpg", None),
        ("/data/a.jpg", "/data/a.png"),
        ("/data/é.jpg", "/data/é.png"),
    ]
    assert rows[3] == {
        "image": "/data/é.jpg",
        "mask": "/data/é.png",
        "reason": 'the file is "empty"',
    }


def test_a_list_of_none_replaces_an_earlier_one(tmp_path: Path) -> None:
    uri = str(tmp_path / "skipped.jsonl")
    write_skipped(uri, SKIPPED)
    write_skipped(uri, [])
    assert Path(uri).read_bytes() == b""


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match=f"^cannot write {tmp_path}/file/skipped.jsonl"):
        write_skipped(f"{tmp_path}/file/skipped.jsonl", SKIPPED)


@pytest.mark.parametrize(
    ("count", "total", "limit"),
    [(0, 0, 0.0), (0, 9, 0.0), (5, 100, 0.05), (29, 100, 0.29), (3, 3, 1.0)],
)
def test_as_many_as_the_limit_are_accepted(count: int, total: int, limit: float) -> None:
    check_error_rate(SKIPPED[:1] * count, total, limit, "/run/skipped.jsonl")


@pytest.mark.parametrize(
    ("count", "total", "limit"), [(1, 1000, 0.0), (6, 100, 0.05), (3, 3, 0.99)]
)
def test_more_than_the_limit_are_refused(count: int, total: int, limit: float) -> None:
    with pytest.raises(InputError):
        check_error_rate(SKIPPED[:1] * count, total, limit, "/run/skipped.jsonl")


def test_the_refusal_says_how_many_why_and_what_to_do() -> None:
    with pytest.raises(InputError) as refusal:
        check_error_rate(SKIPPED[2:], 16, 0.05, "s3://bucket/run/skipped.jsonl")
    message = str(refusal.value)
    for part in (
        "1 of 15 pairs cannot be used and 1 file(s) have no partner (12.50%)",
        "--max-error-rate 5.00%",
        "/data/a.jpg: is 3 x 4 pixels; the first: /data/a.jpg: no mask below /masks is named a",
        "s3://bucket/run/skipped.jsonl",
    ):
        assert part in message
    assert "\n" not in message
    assert message.endswith("repair them or correct the flags, or raise --max-error-rate")
    with pytest.raises(InputError, match=r"lists them all: repair them or correct the flags$"):
        check_error_rate(SKIPPED[2:], 2, 0.05, "s3://bucket/run/skipped.jsonl")


def test_files_without_a_partner_alone_are_no_pairs() -> None:
    with pytest.raises(InputError) as refusal:
        check_error_rate(SKIPPED[1:3], 16, 0.05, "/run/skipped.jsonl")
    message = str(refusal.value)
    assert message.startswith("2 file(s) have no partner, beside 14 pair(s) (12.50%), over ")
    assert "pairs cannot be used" not in message
    assert message.endswith("add their partners or correct the flags, or raise --max-error-rate")


def test_the_most_frequent_reason_of_a_pair_comes_first() -> None:
    lone = [Skipped(None, f"/m/{n}.png", f"no image below /i is named {n}") for n in range(70)]
    pairs = [Skipped("/i/1.jpg", "/m/1.png", "/m/1.png: the file is empty")] + [
        Skipped(f"/i/{n}.jpg", f"/m/{n}.png", f"/m/{n}.png: has the value 3 in {n} pixels")
        for n in range(2, 9)
    ]
    for skipped in (lone + pairs, pairs[::-1] + lone):
        with pytest.raises(InputError) as refusal:
            check_error_rate(skipped, 90, 0.05, "/run/skipped.jsonl")
        assert str(refusal.value) == (
            "8 of 20 pairs cannot be used and 70 file(s) have no partner (86.67%), over "
            "--max-error-rate 5.00%; the first of 7 alike: /m/2.png: has the value 3 in 2 pixels; "
            "the first of 70 alike: /m/0.png: no image below /i is named 0; /run/skipped.jsonl "
            "lists them all: repair them or correct the flags, or raise --max-error-rate"
        )


@pytest.mark.parametrize(
    ("skipped", "part"),
    [
        (Skipped(None, "/m/b.png", "no image is named b"), "the first: /m/b.png: no image"),
        (Skipped("/i/c.jpg", "/m/c.png", "/m/c.png: the file is empty"), "first: /m/c.png: the"),
        (Skipped("/i/c.jpg", "/m/c.png", "cannot read /i/c.jpg: x"), "first: cannot read /i/c"),
    ],
)
def test_the_refusal_names_the_file_once(skipped: Skipped, part: str) -> None:
    with pytest.raises(InputError) as refusal:
        check_error_rate([skipped], 2, 0.05, "/run/skipped.jsonl")
    assert part in str(refusal.value)

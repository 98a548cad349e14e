"""A download ends with the right file, or with one line that says what to do."""

import fcntl
import hashlib
import random
from pathlib import Path

import pytest

from segray import progress
from segray.data import download
from segray.data.download import check_url, fetch
from segray.errors import InputError
from tests.data.conftest import Mirror
from tests.support import free_port, logged_lines

CONTENT = random.Random(1).randbytes(3_000_000)
OTHER = random.Random(2).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def content(mirror: Mirror) -> None:
    mirror.files["file.tar.gz"] = CONTENT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.tar.gz"


def run(mirror: Mirror, path: Path, content: bytes = CONTENT) -> list[str]:
    """Fetch the file, and get the lines that the job would print."""
    with logged_lines() as lines:
        fetch(f"{mirror.url}/file.tar.gz", path, hashlib.sha256(content).hexdigest())
    return lines


def refusal(mirror: Mirror, path: Path, content: bytes = CONTENT) -> str:
    with pytest.raises(InputError) as caught:
        run(mirror, path, content)
    message = str(caught.value)
    assert "\n" not in message
    assert not path.exists()
    return message


def check_fetched(path: Path) -> None:
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def break_off(mirror: Mirror, path: Path, after: int) -> None:
    """A first run that breaks off, and whose every new attempt is refused."""
    mirror.cuts = [after]
    mirror.statuses = [None, 503, 503, 503]
    message = refusal(mirror, path)
    assert "HTTP 503" in message
    assert "run the same command again to go on" in message
    mirror.requests.clear()


def test_fetches_a_file_once(mirror: Mirror, path: Path) -> None:
    first, second = run(mirror, path), run(mirror, path)

    check_fetched(path)
    assert len(mirror.requests) == 1
    assert first == ["file.tar.gz: 3.0 MB fetched, the checksum fits"]
    assert second == [f"file.tar.gz: fetched earlier, in {path.parent}"]


def test_asks_for_the_rest_after_a_broken_connection(mirror: Mirror, path: Path) -> None:
    mirror.cuts = [1_234_567]

    told = run(mirror, path)

    check_fetched(path)
    assert [(r.range, r.status) for r in mirror.requests] == [
        (None, 200),
        ("bytes=1234567-", 206),
    ]
    assert mirror.sent("file.tar.gz") == len(CONTENT)
    assert any("closed early" in line for line in told)


def test_a_later_run_goes_on(mirror: Mirror, path: Path) -> None:
    break_off(mirror, path, 2_000_000)

    run(mirror, path)

    check_fetched(path)
    assert [(r.range, r.sent) for r in mirror.requests] == [("bytes=2000000-", 1_000_000)]


def test_a_later_run_goes_on_behind_a_redirection(mirror: Mirror, path: Path) -> None:
    mirror.redirect = mirror.url + "/"
    mirror.url = mirror.url.replace("/pets", "/moved")
    break_off(mirror, path, 2_000_000)

    run(mirror, path)

    check_fetched(path)
    assert [r.status for r in mirror.requests] == [301, 206]


def test_a_server_that_breaks_off_often_gets_there(mirror: Mirror, path: Path) -> None:
    """An attempt that got on counts for no failure, beyond the first few bytes."""
    mirror.files["file.tar.gz"] = content = CONTENT * 4
    mirror.cuts = [1_100_000] * 10

    run(mirror, path, content)

    assert path.read_bytes() == content
    assert mirror.sent("file.tar.gz") == len(content)


def test_a_server_without_ranges_that_breaks_off_is_given_up(mirror: Mirror, path: Path) -> None:
    mirror.ranges = False
    mirror.cuts = [2_000_000] * 100

    message = refusal(mirror, path)

    assert "run the same command again to go on" in message
    assert len(mirror.requests) < 10


@pytest.mark.parametrize("passing", [429, 500, 503])
def test_a_passing_refusal_is_waited_out(mirror: Mirror, path: Path, passing: int) -> None:
    mirror.statuses = [passing, passing]

    run(mirror, path)

    check_fetched(path)


def test_a_server_without_ranges_sends_all_again(mirror: Mirror, path: Path) -> None:
    mirror.ranges = False
    mirror.cuts = [1_000_000]

    told = run(mirror, path)

    check_fetched(path)
    assert any("from its beginning" in line for line in told)


@pytest.mark.parametrize("size", [3_000_000, 2_500_000, 1_500_000])
def test_a_changed_file_is_not_spliced(mirror: Mirror, path: Path, size: int) -> None:
    mirror.files["file.tar.gz"] = OTHER
    break_off(mirror, path, 2_000_000)
    mirror.files["file.tar.gz"] = changed = CONTENT[:size]

    told = run(mirror, path, changed)

    assert path.read_bytes() == changed
    assert list(path.parent.iterdir()) == [path]
    assert any("not of one file" in line for line in told)


def test_an_answer_of_unknown_length(mirror: Mirror, path: Path) -> None:
    mirror.sized = False
    run(mirror, path)
    check_fetched(path)


def test_a_truncated_answer_of_unknown_length_is_not_kept(mirror: Mirror, path: Path) -> None:
    mirror.sized = False
    mirror.cuts = [2_000_000]

    assert "SHA-256" in refusal(mirror, path)
    run(mirror, path)

    check_fetched(path)


def test_a_run_that_ended_before_the_checksum(mirror: Mirror, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("file.tar.gz.partial").write_bytes(CONTENT)

    run(mirror, path)

    check_fetched(path)
    assert mirror.sent("file.tar.gz") == 0


def test_a_damaged_file_in_the_cache_is_fetched_again(mirror: Mirror, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])

    assert "damaged" in run(mirror, path)[0]

    check_fetched(path)


def test_wrong_checksum(mirror: Mirror, path: Path) -> None:
    message = refusal(mirror, path, content=OTHER)

    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert hashlib.sha256(OTHER).hexdigest() in message
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_lasting_refusal_is_said_at_once(mirror: Mirror, path: Path, status: int) -> None:
    mirror.statuses = [status]

    message = refusal(mirror, path)

    assert f"HTTP {status}" in message
    assert mirror.url in message
    assert len(mirror.requests) == 1


def test_no_server(mirror: Mirror, path: Path) -> None:
    mirror.url = f"http://127.0.0.1:{free_port()}/pets"

    message = refusal(mirror, path)

    assert "Connection refused" in message
    assert "run the same command again" in message


@pytest.mark.parametrize("scheme", ["ftp", "file"])
def test_a_redirection_out_of_the_web(mirror: Mirror, path: Path, scheme: str) -> None:
    mirror.redirect = f"{scheme}://127.0.0.1:{free_port()}/"
    mirror.url = mirror.url.replace("/pets", "/moved")

    refusal(mirror, path)


def test_a_password_of_another_address_is_not_repeated(mirror: Mirror, path: Path) -> None:
    mirror.redirect = "file://user:p@ss:w0rd@elsewhere/"
    mirror.url = mirror.url.replace("/pets", "/moved")

    message = refusal(mirror, path)

    assert "file://elsewhere/" in message
    assert "w0rd" not in message


def test_a_file_that_is_too_large(
    mirror: Mirror, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_MAX_BYTES", 1 << 20)

    assert "check --url" in refusal(mirror, path)


def test_a_folder_that_cannot_be_written(mirror: Mirror, users_folder: Path) -> None:
    users_folder.chmod(0o500)

    message = refusal(mirror, users_folder / "cache" / "file.tar.gz")

    assert str(users_folder) in message
    assert "permissions" in message
    assert mirror.requests == []


def test_a_second_run_at_the_same_time(mirror: Mirror, path: Path) -> None:
    path.parent.mkdir()
    with path.with_name("file.tar.gz.partial").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another run" in refusal(mirror, path)
    run(mirror, path)
    check_fetched(path)


def test_progress(mirror: Mirror, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)

    told = run(mirror, path)

    assert any("file.tar.gz: 3 of 3 MB, " in line and "MB/s, 0 s left" in line for line in told)


def test_an_address_keeps_its_folder() -> None:
    assert check_url("https://host:1/a/b/", "--url") == "https://host:1/a/b"


@pytest.mark.parametrize(
    "url",
    [
        "pets",
        "/data/pets",
        "s3://bucket/pets",
        "file:///data/pets",
        "ftp://host/pets",
        "http:///pets",
        "http://[::1/pets",
        "https://user:secret@host/pets",
        "https://secret@host/pets",
        "https://host/pets?token=secret",
        "ftp://user:secret@host/pets",
    ],
)
def test_refuses_what_is_no_open_address(url: str) -> None:
    with pytest.raises(InputError, match=r"^--url ") as caught:
        check_url(url, "--url")
    assert "secret" not in str(caught.value)

"""The lock: one run at a time, and none for ever after its holder has died."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segray.errors import InputError
from segray.storage import lock
from segray.storage.files import child_names, read_bytes, remove, write_bytes
from segray.storage.lock import LOCK, hold_lock
from segray.storage.s3 import forget_client
from segray.storage.uri import exists, join_uri
from tests.endpoints import CountingProxy, FaultyProxy, PeculiarStore
from tests.endpoints.server import Head
from tests.endpoints.stores import asking

HOLDER = """
import sys, time
from segray.storage import lock
lock.BEAT = 0.2
with lock.hold_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        bucket = request.getfixturevalue("s3")(tmp_path.name.replace("_", "-").lower())
        return f"{bucket}/out"
    return str(tmp_path / "out")


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that beats often and loses patience soon."""
    monkeypatch.setattr(lock, "BEAT", 0.2)
    monkeypatch.setattr(lock, "PATIENCE", 2.0)


@contextmanager
def held_by_another(output: str) -> Iterator[None]:
    """A process that holds the lock, and is killed at the end."""
    command = [sys.executable, "-c", HOLDER, output]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.mark.usefixtures("brisk")
def test_it_is_refused_while_another_process_holds_it_and_free_when_that_was_killed(
    output: str,
) -> None:
    refused = pytest.raises(InputError, match="another run is at work on this output")
    with held_by_another(output), refused, hold_lock(output):
        pass
    begun = time.monotonic()
    with hold_lock(output):
        pass
    # Its process is gone from this machine: nobody waits for it to show life.
    assert time.monotonic() - begun < 1.5


def test_no_output_is_in_the_copy_of_the_working_directory_that_ray_deletes(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    with pytest.raises(InputError, match="absolute path"), hold_lock(str(folder / "output")):
        pass
    assert not folder.exists()


def test_nothing_is_left_of_it(output: str) -> None:
    with hold_lock(output):
        assert child_names(output) == [LOCK]
    assert child_names(output) == []
    with hold_lock(output):
        pass


@pytest.mark.usefixtures("brisk")
def test_a_holder_on_another_machine_is_watched_before_it_is_taken_for_dead(
    s3: Callable[[str], str], lines: list[str]
) -> None:
    output = s3("watched") + "/out"
    other = {"host": "elsewhere", "process": os.getpid(), "run": "x"}
    write_bytes(join_uri(output, LOCK), json.dumps(other).encode())
    begun = time.monotonic()
    with hold_lock(output):
        assert time.monotonic() - begun > 2
        assert json.loads(read_bytes(join_uri(output, LOCK)))["process"] == os.getpid()
        assert json.loads(read_bytes(join_uri(output, LOCK)))["host"] != "elsewhere"
    assert len(lines) == 1
    assert "elsewhere" in lines[0]


@pytest.mark.usefixtures("brisk")
def test_a_run_whose_lock_was_taken_is_told(s3: Callable[[str], str]) -> None:
    output = s3("taken") + "/out"
    with hold_lock(output) as check:
        check()
        write_bytes(join_uri(output, LOCK), b'{"run": "of someone else"}')
        time.sleep(2)
        with pytest.raises(InputError, match="was taken by another run"):
            check()
    # The other one's lock is not removed.
    assert child_names(output) == [LOCK]


@pytest.mark.parametrize("kind", ["reset", "slow_down", "internal_error"])
def test_a_run_keeps_its_lock_though_answers_are_lost(
    s3: Callable[[str], str], s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A beat whose answer is lost has changed the lock nevertheless."""
    output = s3(f"lost-{kind.replace('_', '-')}") + "/out"
    monkeypatch.setattr(lock, "BEAT", 0.05)
    with FaultyProxy(s3_endpoint, 0.5, 1, kinds=(kind,), writes=True) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        forget_client()
        try:
            with hold_lock(output) as check:
                while proxy.faults[kind] < 12:
                    time.sleep(0.1)
                    check()
        finally:
            forget_client()


@pytest.mark.usefixtures("brisk")
def test_a_run_whose_lock_is_gone_is_told(s3: Callable[[str], str]) -> None:
    """Another one may have taken it, done its work and released it."""
    output = s3("gone") + "/out"
    with hold_lock(output) as check:
        remove(join_uri(output, LOCK))
        time.sleep(2)
        with pytest.raises(InputError, match="was taken by another run"):
            check()


@pytest.mark.usefixtures("brisk")
def test_a_holder_in_another_container_of_this_host_is_alive(s3: Callable[[str], str]) -> None:
    """There the process numbers are others, so that none of them says who is dead."""
    uri = join_uri(s3("container"), "out", LOCK)
    with subprocess.Popen(["true"]) as dead:
        pass
    ended = threading.Event()

    def live() -> None:
        beat = 0
        while not ended.is_set():
            beat += 1
            other = {"host": socket.gethostname(), "process": dead.pid, "run": "x", "beat": beat}
            write_bytes(uri, json.dumps(other).encode())
            time.sleep(0.2)

    holder = threading.Thread(target=live)
    holder.start()
    try:
        while not exists(uri):
            time.sleep(0.05)
        refused = pytest.raises(InputError, match="another run is at work on this output")
        with refused, hold_lock(uri.removesuffix(f"/{LOCK}")):
            pass
    finally:
        ended.set()
        holder.join()


def test_a_lock_that_another_run_has_just_taken_is_not_released(s3: Callable[[str], str]) -> None:
    output = s3("released") + "/out"
    with hold_lock(output):
        write_bytes(join_uri(output, LOCK), b'{"run": "of someone else"}')
    assert child_names(output) == [LOCK]


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("way", ["conditions_ignored", "no_conditions"])
@pytest.mark.parametrize("left", ["nothing", "of a dead run"])
def test_a_store_without_conditional_writes_is_told_and_no_lock_is_left(
    s3: Callable[[str], str], s3_endpoint: str, way: str, left: str
) -> None:
    """Nothing would keep a second run away from there."""
    output = s3(f"{way}-{left}".replace("_", "-").replace(" ", "-")) + "/out"
    if left != "nothing":
        write_bytes(join_uri(output, LOCK), b'{"host": "elsewhere", "run": "x"}')
    with (
        PeculiarStore(s3_endpoint, way) as store,
        asking(store.url),
        pytest.raises(InputError, match=r"conditional writes.*--no-lock") as refusal,
        hold_lock(output),
    ):
        pass
    assert len(str(refusal.value).splitlines()) == 1
    # It is no fault that may pass.
    refused = f"PUT /{output.removeprefix('s3://')}/{LOCK} NotImplemented"
    assert store.refused == [refused] * (way == "no_conditions")
    # That of a run whose end was not seen is not removed where it could not be taken.
    kept = way == "no_conditions" and left != "nothing"
    assert child_names(output) == [LOCK] * kept


@pytest.mark.usefixtures("brisk")
def test_a_living_lock_is_not_overwritten_where_conditions_are_ignored(
    s3: Callable[[str], str], s3_endpoint: str
) -> None:
    output = s3("ignored-and-alive") + "/out"
    refused = pytest.raises(InputError, match="another run is at work on this output")
    with held_by_another(output), PeculiarStore(s3_endpoint, "conditions_ignored") as store:
        with asking(store.url), refused, hold_lock(output):
            pass
        beat = json.loads(read_bytes(join_uri(output, LOCK)))
        assert beat["process"] != os.getpid()


class _Refusing(PeculiarStore):
    """A store that refuses every conditional write because of its condition."""

    def _refusal(self, request: Head, method: bytes) -> tuple[bytes, bytes, bytes] | None:
        if method == b"PUT":
            return b"412 Precondition Failed", b"PreconditionFailed", b"A condition did not hold"
        return None


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("left", ["nothing", "of a dead run"])
def test_a_store_that_refuses_every_conditional_write_is_told(
    s3: Callable[[str], str], s3_endpoint: str, left: str
) -> None:
    output = s3(f"refusing-{left}".replace(" ", "-")) + "/out"
    if left != "nothing":
        other = {"machine": lock._this_machine(), "process": None, "run": "x"}
        write_bytes(join_uri(output, LOCK), json.dumps(other).encode())
    with (
        _Refusing(s3_endpoint) as store,
        asking(store.url),
        pytest.raises(InputError, match=r"conditional write.*--no-lock") as refusal,
        hold_lock(output),
    ):
        pass
    assert len(str(refusal.value).splitlines()) == 1
    assert 1 < len(store.refused) < 10


def test_what_the_look_at_a_store_costs(s3: Callable[[str], str], s3_endpoint: str) -> None:
    output = s3("cost-of-a-lock") + "/out"
    with CountingProxy(s3_endpoint) as proxy, asking(proxy.url), hold_lock(output):
        # A look for another run, the lock, and once more to see it refused.
        assert proxy.requests == {"GET": 1, "PUT": 2}


def test_without_a_lock_nothing_is_written_and_the_user_is_told(
    s3: Callable[[str], str], lines: list[str]
) -> None:
    output = s3("without-a-lock") + "/out"
    with hold_lock(output, False) as check, hold_lock(output, False):
        check()
        assert child_names(output) == []
    assert len(lines) == 2
    assert all("--no-lock" in line and output in line for line in lines)


def test_a_disk_is_locked_in_any_case(tmp_path: Path, lines: list[str]) -> None:
    """Its lock needs no store, and nodes of a cluster are shown by it that they share the disk."""
    output = str(tmp_path / "out")
    with hold_lock(output, False):
        assert child_names(output) == [LOCK]
        refused = pytest.raises(InputError, match="another run is at work on this output")
        with refused, hold_lock(output, False):
            pass
    assert lines == []

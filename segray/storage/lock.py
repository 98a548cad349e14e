"""Lock: one run at a time on an output."""

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segray.errors import InputError
from segray.storage.objects import retry
from segray.storage.s3 import s3_client, split_uri
from segray.storage.uri import explain_errors, is_local, join_uri

log = logging.getLogger(__name__)

#: The name of the lock in the output.
LOCK = "run.lock"

# The seconds between heartbeats of a run that holds a lock in S3, and the seconds without one after
# which it is considered dead. Clocks of different machines are never compared.
BEAT = 5.0
PATIENCE = 25.0

# The number of refused writes of a lock that nobody seems to hold, after which it is given up.
_REFUSALS = 5

# The timeouts of one request in seconds, short enough for several requests within PATIENCE.
_SECONDS = 5.0

_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409")


# A part of the paths below which Ray unpacks `ray job submit --working-dir`.
_RAYS_COPY = "/runtime_resources/working_dir_files/"


@contextlib.contextmanager
def hold_lock(output: str, lock: bool = True) -> Iterator[Callable[[], None]]:
    """Lock an output against other runs. The lock of a dead process does not count.

    On a disk the operating system holds the lock as long as the process lives. In S3 the lock is an
    object, made by a conditional write
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html), which the
    holder keeps changing.

    Args:
        output: the absolute URI of the folder.
        lock: False, as by --no-lock, locks nothing in S3, and prints a line about it.

    Yields:
        A function that raises InputError if the lock was lost in the meantime.

    Raises:
        InputError: another run holds the lock, the lock cannot be written, the store does not
            support conditional writes, or the folder is a copy that Ray deletes.
    """
    if _RAYS_COPY in output:
        raise InputError(
            f"{output} is in the copy of the working directory that Ray made for this job and will "
            "delete: give --output as an s3:// URI or an absolute path"
        )
    if not lock and not is_local(output):
        log.info(
            f"--no-lock: nothing prevents a second run on {output}: make sure that this is the "
            "only one"
        )
        yield lambda: None
        return
    uri = join_uri(output, LOCK)
    with _hold_file(uri) if is_local(uri) else _hold_object(uri) as check:
        yield check


@contextlib.contextmanager
def _hold_file(uri: str) -> Iterator[Callable[[], None]]:
    with explain_errors(uri, "write"):
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(uri, mode=0o666)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(_refusal(uri, "another process on this file system")) from None
    try:
        yield lambda: None
    finally:
        # Removed while still locked, so that a process waiting for this file has to make a new one.
        Path(uri).unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def _hold_object(uri: str) -> Iterator[Callable[[], None]]:
    bucket, key = split_uri(uri)
    place = {"Bucket": bucket, "Key": key}
    holder = {
        "host": socket.gethostname(),
        "machine": _this_machine(),
        "process": os.getpid(),
        "run": secrets.token_hex(8),
    }
    with explain_errors(uri, "write"):
        etag = _take(place, holder, uri)
    released, lost = threading.Event(), threading.Event()

    def beat() -> None:
        nonlocal etag
        count = 0
        while not released.wait(BEAT):
            count += 1
            # After a failure of the store, the next heartbeat tries again.
            with contextlib.suppress(Exception):
                try:
                    etag = _put(place, {**holder, "beat": count}, IfMatch=etag)
                except Exception as error:
                    if _code(error) not in _REFUSED:
                        raise
                    # Perhaps an earlier heartbeat of this run, whose answer was lost, changed the
                    # lock.
                    etag, other = _read(place)
                    if other.get("run") != holder["run"]:
                        lost.set()
                        return

    def check() -> None:
        if lost.is_set():
            raise InputError(
                f"{uri} was taken by another run, as this one gave no sign of life for "
                f"{PATIENCE:.0f} seconds: run again when that one has ended"
            )

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        released.set()
        thread.join()
        with contextlib.suppress(Exception):
            retry(uri, lambda: _release(place, holder))


def _take(place: dict[str, str], holder: dict[str, Any], uri: str) -> str:
    """Write the lock if there is none, or if its holder is dead; return its ETag."""
    refusals = 0
    while refusals < _REFUSALS:
        # Look first: a store that ignores the condition would overwrite the lock of a living run.
        etag, other = retry(uri, lambda: _read(place))
        if etag and other.get("run") == holder["run"]:
            return etag  # written by an attempt whose answer was lost
        if etag and not _is_dead(place, etag, other, holder, uri):
            continue  # released in the meantime
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            taken = _put_persistently(uri, place, holder, condition)
        except _ConditionError:
            # Another run was faster, as the next look will tell.
            refusals += 1
            time.sleep(BEAT / 5)
            continue
        try:
            # The lock is ours. The same write again must now be refused, or the store ignores
            # conditions.
            _put_persistently(uri, place, holder, condition)
        except _ConditionError:
            return taken
        retry(uri, lambda: _release(place, holder))
        raise InputError(_no_conditions(uri, "ignores conditional writes"))
    raise InputError(_no_conditions(uri, "refuses every conditional write"))


class _ConditionError(Exception):
    """A conditional write was refused because of its condition."""


def _put_persistently(
    uri: str, place: dict[str, str], document: dict[str, Any], condition: dict[str, str]
) -> str:
    try:
        return retry(uri, lambda: _put(place, document, **condition))
    except Exception as error:
        if _code(error) in _REFUSED:
            raise _ConditionError from error
        if _code(error) in ("NotImplemented", "501"):
            raise InputError(_no_conditions(uri, "does not know conditional writes")) from error
        raise


def _is_dead(
    place: dict[str, str],
    etag: str,
    other: dict[str, Any],
    holder: dict[str, Any],
    uri: str,
) -> bool:
    """Return True if the lock of another run may be taken, False if it was released.

    Raises:
        InputError: the other run is alive.
    """
    who = f"process {other.get('process', '?')} on {other.get('host', '?')}"
    here = other.get("machine") == holder["machine"] != ""
    if here and not _is_alive(other.get("process")):
        return True
    log.info(f"{uri} is held by {who}: looking for {PATIENCE:.0f} s whether it is alive")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(BEAT / 5)
        now, _ = retry(uri, lambda: _read(place))
        if not now:
            return False
        if now != etag:
            raise InputError(_refusal(uri, who))
    return True


def _release(place: dict[str, str], holder: dict[str, Any]) -> None:
    if _read(place)[1].get("run") == holder["run"]:
        s3_client(_SECONDS, _SECONDS).delete_object(**place)


def _put(place: dict[str, str], document: dict[str, Any], **condition: str) -> str:
    answer = s3_client(_SECONDS, _SECONDS).put_object(
        Body=json.dumps(document).encode(), **place, **condition
    )
    etag: str = answer["ETag"]
    return etag


def _read(place: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the ETag and the content; empty if there is no lock."""
    try:
        answer = s3_client(_SECONDS, _SECONDS).get_object(**place)
        return answer["ETag"], json.loads(answer["Body"].read())
    except ValueError:
        return answer["ETag"], {}
    except Exception as error:
        if _code(error) == "NoSuchKey":
            return "", {}
        raise


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _this_machine() -> str:
    """Identify the scope of process numbers, boot and PID namespace; empty if unknown."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{start} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_alive(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _no_conditions(uri: str, problem: str) -> str:
    return (
        f"cannot lock {uri}: the store {problem}, and so no lock can keep other runs away: give "
        "--no-lock, and see to it that one run at a time is at work on this output"
    )


def _refusal(uri: str, who: str) -> str:
    return (
        f"another run is at work on this output ({who} holds {uri}): wait for it to end, or give "
        "another --output"
    )

"""Download: fetch a file with a known checksum over HTTP, and resume interrupted downloads.

The checksum alone decides whether a file is right, also one whose parts came in several attempts.
"""

import contextlib
import fcntl
import hashlib
import http.client
import io
import logging
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from segray.errors import InputError
from segray.progress import ProgressLine
from segray.storage.uri import explain_errors, omit_passwords

log = logging.getLogger(__name__)

#: The seconds to wait before each retry; after the last one the download fails.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)

_TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 18
_MAX_BYTES = 8 << 30  # of one file, so that a server cannot fill the disk
# Bytes of progress that reset the number of retries.
_HEADWAY = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # transient HTTP statuses


def check_url(url: str, flag: str) -> str:
    """Normalise the address of a folder on a web server, so that names can be appended.

    Args:
        url: the address.
        flag: the flag that it was given by, for the message.

    Raises:
        InputError: it is not an http:// or https:// address, or contains credentials or a query.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise InputError(f"{flag} is no address: give https://host/folder") from error
    # Checked before any message repeats the address: it may contain a password or a token.
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(f"{flag} must hold neither credentials nor a query: name an open mirror")
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(f"{flag} {url} is no address: give https://host/folder")
    return url.rstrip("/")


def fetch(url: str, path: Path, sha256: str) -> None:
    """Fetch a file, unless it already exists.

    An incomplete file is kept beside it as ``NAME.partial``, and a later attempt requests the rest.
    The file gets its name once its checksum is verified; if the parts of several attempts are not
    those of one file, it is fetched once more from its beginning. An existing file is verified
    again.

    Args:
        url: the address of the file, checked by `check_url`.
        path: the local path of the file.
        sha256: its SHA-256 in lower-case hexadecimal digits.

    Raises:
        InputError: the server refuses, does not answer or keeps closing the connection, the
            checksum is wrong, the folder cannot be written, or another run is fetching the same
            file.
    """
    with explain_errors(str(path)):
        if path.exists():
            if _file_sha256(path) == sha256:
                log.info(f"{path.name}: fetched earlier, in {path.parent}")
                return
            log.info(f"{path} is damaged: fetching it again")
            path.unlink()
    with _open_partial(path) as file:
        while True:
            resumed = _receive(url, file, path.name)
            with explain_errors(str(path), "write"):
                partial = Path(file.name)
                found = _file_sha256(partial)
                if found == sha256:
                    partial.replace(path)
                    size = path.stat().st_size / 1e6
                    log.info(f"{path.name}: {size:.1f} MB fetched, the checksum fits")
                    return
                if not resumed:
                    partial.unlink()
                    break
                file.truncate(0)
            log.info(f"{path.name}: its parts are not of one file; fetching it from its beginning")
    raise InputError(
        f"{url} is not the file it should be: its SHA-256 is {found} instead of {sha256}; it was "
        "thrown away, run the same command again to fetch it anew"
    )


class _Interrupted(Exception):
    """An attempt failed in a way that the next one may not."""


@contextlib.contextmanager
def _open_partial(path: Path) -> Iterator[io.FileIO]:
    """The incomplete file, open for appending, and locked against another run."""
    partial = path.with_name(path.name + ".partial")
    with contextlib.ExitStack() as stack:
        with explain_errors(str(partial), "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that closing the file does not repeat a write that failed on a full
            # disk.
            file = stack.enter_context(partial.open("ab", buffering=0))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"another run is writing {partial}: wait for its end") from error
            except OSError:
                pass  # a file system without locks
        yield file


def _size(file: io.FileIO) -> int:
    return Path(file.name).stat().st_size


def _receive(url: str, file: io.FileIO, name: str) -> bool:
    """Fetch what is missing of a file; return True if some of it came in an earlier attempt."""
    failures, furthest = 0, _size(file)
    resumed = False
    while True:
        try:
            return _receive_rest(url, file, name) or resumed
        except _Interrupted as interruption:
            resumed = True
            # Progress is measured from the furthest point: a server that only sends whole files,
            # and always fails at the same place, makes none.
            if _size(file) >= furthest + _HEADWAY:
                failures = 0
            furthest = max(furthest, _size(file))
            if failures == len(PAUSES):
                raise InputError(
                    f"cannot fetch {url} ({interruption}): {_size(file) / 1e6:.1f} MB have arrived "
                    "and are kept, run the same command again to go on"
                ) from interruption
            log.info(f"{name}: {interruption}; again in {PAUSES[failures]:.0f} s")
            time.sleep(PAUSES[failures])
            failures += 1


def _receive_rest(url: str, file: io.FileIO, name: str) -> bool:
    """Make one attempt to fetch the missing part; return True if another part was there."""
    offset = _size(file)
    response = _open(url, offset)
    if response is None:
        return True
    with response:
        if offset and response.status != 206:
            log.info(f"{name}: the server sends the file from its beginning")
            offset = 0
            file.truncate(0)
        resumed = offset > 0
        length = response.getheader("Content-Length") or ""
        total = offset + int(length) if length.isdecimal() else None
        progress = ProgressLine(name, "MB", total, scale=1e6, done=offset)
        for chunk in _chunks(response):
            offset += len(chunk)
            if offset > _MAX_BYTES:
                raise InputError(f"{url} has more than {_MAX_BYTES >> 30} GiB: check --url")
            _append(file, chunk)
            progress.add(len(chunk))
    if total is not None and offset < total:
        raise _Interrupted("the connection was closed early")
    return resumed


def _append(file: io.FileIO, chunk: bytes) -> None:
    with explain_errors(str(file.name), "write"):
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest) :]


def _open(url: str, offset: int) -> http.client.HTTPResponse | None:
    """Request a file from an offset on; None if the server has no byte there."""
    request = urllib.request.Request(url, headers={"User-Agent": "segray"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"HTTP {error.code} {_plain(error.reason)}"
        if error.code == 416 and offset:
            return None  # all is there, or the file is shorter now, as the checksum will tell
        if error.code in _PASSING:
            raise _Interrupted(reason) from error
        raise InputError(f"cannot fetch {url} ({reason}): check --url") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, (ssl.SSLCertVerificationError, http.client.InvalidURL, ValueError)):
            raise InputError(f"cannot fetch {url} ({_plain(cause)}): check --url") from error
        raise _Interrupted(_plain(cause)) from error
    if not isinstance(response, http.client.HTTPResponse):
        raise InputError(f"cannot fetch {url} (the server refers to ftp://): check --url")
    return response


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            # Unlike read(), read1() does not lose received bytes when the connection breaks.
            chunk = response.read1(_CHUNK)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _Interrupted(_plain(error)) from error
        if not chunk:
            return
        yield chunk


def _plain(reason: object) -> str:
    """Put a reason on one line, without passwords: a proxy's address may contain one."""
    text = "".join(c if c.isprintable() else " " for c in str(reason) or type(reason).__name__)
    return omit_passwords(" ".join(text.split()))[:200]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

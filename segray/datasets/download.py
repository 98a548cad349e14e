"""Download: fetch a file with a known checksum over HTTP, and resume interrupted downloads.

Among the libraries that fetch data sets, pooch verifies but does not resume; hence this module on
top of urllib.
"""

import contextlib
import fcntl
import hashlib
import http.client
import io
import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from segray.errors import InputError
from segray.progress import ProgressLine
from segray.storage.uri import explain_errors

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


def fetch(url: str, path: Path, sha256: str, tell: Callable[[str], None]) -> None:
    """Fetch a file, unless it already exists.

    An incomplete file is kept beside it as ``NAME.partial``, and ``NAME.partial.json`` records the
    version of the server's file. A later attempt requests the rest of the same version only; it
    starts over if the server has another version or supports whole files only. The file gets its
    name once its checksum is verified. An existing file is verified again.

    Args:
        url: the address of the file, checked by `check_url`.
        path: the local path of the file.
        sha256: its SHA-256 in lower-case hexadecimal digits.
        tell: called with lines about the progress.

    Raises:
        InputError: the server refuses, does not answer or keeps closing the connection, the
            checksum is wrong, the folder cannot be written, or another run is fetching the same
            file.
    """
    with explain_errors(str(path)):
        if path.exists():
            if _file_sha256(path) == sha256:
                tell(f"{path.name}: fetched earlier, in {path.parent}")
                return
            tell(f"{path} is damaged: fetching it again")
            path.unlink()
    with _Partial.opened(path) as partial:
        _receive(url, partial, tell)
        with explain_errors(str(path), "write"):
            found = _file_sha256(partial.path)
            if found == sha256:
                partial.finish(path)
                tell(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB fetched, the checksum fits")
                return
            partial.discard()
    raise InputError(
        f"{url} is not the file it should be: its SHA-256 is {found} instead of {sha256}; it was "
        "thrown away, run the same command again to fetch it anew"
    )


@dataclass(frozen=True)
class _Version:
    """The version of a server's file, as far as the server states it.

    Attributes:
        size: the size of the whole file in bytes.
        etag: the header ``ETag``.
        modified: the header ``Last-Modified``.
    """

    size: int | None = None
    etag: str | None = None
    modified: str | None = None

    @property
    def condition(self) -> str | None:
        """The value of ``If-Range``, which must not be a weak ETag (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def contradicts(self, other: "_Version") -> bool:
        return any(
            None not in (mine, others) and mine != others
            for mine, others in zip(vars(self).values(), vars(other).values(), strict=True)
        )


class _Interrupted(Exception):
    """An attempt failed in a way that the next one may not."""


class _Partial:
    """An incomplete file, open for appending, and the version of the file that it is a part of."""

    def __init__(self, path: Path, file: io.FileIO) -> None:
        self.path, self._file = path, file
        self._note = path.with_name(path.name + ".json")
        self.version = self._read_note()
        if self.version == _Version():
            self.restart()  # the version of the content is unknown

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path) -> "Iterator[_Partial]":
        path = path.with_name(path.name + ".partial")
        with contextlib.ExitStack() as stack:
            with explain_errors(str(path), "write"):
                path.parent.mkdir(parents=True, exist_ok=True)
                # Unbuffered, so that closing the file does not repeat a write that failed on a full
                # disk.
                file = stack.enter_context(path.open("ab", buffering=0))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise InputError(f"another run is writing {path}: wait for its end") from error
                except OSError:
                    pass  # a file system without locks
                partial = cls(path, file)
            yield partial

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def append(self, chunk: bytes) -> None:
        with explain_errors(str(self.path), "write"):
            rest = memoryview(chunk)
            while rest:
                rest = rest[self._file.write(rest) :]

    def restart(self, version: _Version | None = None) -> None:
        """Discard the content, to fetch a version from its beginning."""
        self.version = version or _Version()
        with explain_errors(str(self.path), "write"):
            self._file.truncate(0)
            self._note.write_text(json.dumps(vars(self.version)))

    def finish(self, path: Path) -> None:
        """Rename the file to its final name."""
        self.path.replace(path)
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        self.path.unlink()
        self._note.unlink(missing_ok=True)

    def _read_note(self) -> _Version:
        try:
            return _Version(**json.loads(self._note.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return _Version()


def _receive(url: str, partial: _Partial, tell: Callable[[str], None]) -> None:
    failures, furthest = 0, partial.size
    while True:
        try:
            _receive_rest(url, partial, tell)
            return
        except _Interrupted as interruption:
            # Progress is measured from the furthest point: a server that only sends whole files,
            # and always fails at the same place, makes none.
            if partial.size >= furthest + _HEADWAY:
                failures = 0
            furthest = max(furthest, partial.size)
            if failures == len(PAUSES):
                raise InputError(
                    f"cannot fetch {url} ({interruption}): {partial.size / 1e6:.1f} MB have "
                    "arrived and are kept, run the same command again to go on"
                ) from interruption
            tell(f"{partial.path.stem}: {interruption}; again in {PAUSES[failures]:.0f} s")
            time.sleep(PAUSES[failures])
            failures += 1


def _receive_rest(url: str, partial: _Partial, tell: Callable[[str], None]) -> None:
    """Make one attempt to fetch the missing part."""
    name, offset = partial.path.stem, partial.size
    if offset and offset == partial.version.size:
        return  # an earlier run ended between the last byte and the checksum
    with _open(url, partial) as response:
        version = _version(response)
        if response.status == 206:
            if version.contradicts(partial.version) or _range_start(response) != offset:
                partial.restart()
                raise _Interrupted("the file on the server has changed")
        else:
            if offset:
                tell(f"{name}: the server sends the file from its beginning")
            offset = 0
            partial.restart(version)
        progress = ProgressLine(name, "MB", version.size, tell, scale=1e6, done=offset)
        for chunk in _chunks(response):
            offset += len(chunk)
            if offset > _MAX_BYTES:
                raise InputError(f"{url} has more than {_MAX_BYTES >> 30} GiB: check --url")
            partial.append(chunk)
            progress.add(len(chunk))
    if version.size is not None and offset < version.size:
        raise _Interrupted("the connection was closed early")


def _open(url: str, partial: _Partial) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "segray"})
    if partial.size:
        request.add_header("Range", f"bytes={partial.size}-")
        if partial.version.condition:
            request.add_header("If-Range", partial.version.condition)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"HTTP {error.code} {_plain(error.reason)}"
        if error.code == 416:  # the file is now shorter than the part received
            partial.restart()
            raise _Interrupted("the file on the server has changed") from error
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


def _version(response: http.client.HTTPResponse) -> _Version:
    if response.status == 206:
        size = (response.getheader("Content-Range") or "").rpartition("/")[2]
    else:
        size = response.getheader("Content-Length") or ""
    return _Version(
        int(size) if size.isdecimal() else None,
        response.getheader("ETag"),
        response.getheader("Last-Modified"),
    )


def _range_start(response: http.client.HTTPResponse) -> int | None:
    start = re.match(r"bytes (\d+)-", response.getheader("Content-Range") or "")
    return int(start[1]) if start else None


def _plain(reason: object) -> str:
    """Put a reason on one line, without passwords: a proxy's address may contain one."""
    text = "".join(c if c.isprintable() else " " for c in str(reason) or type(reason).__name__)
    return re.sub(r"//[^/@\s]*@", "//", " ".join(text.split()))[:200]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

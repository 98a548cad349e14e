"""Objects: fetch a whole file or object, with a single request unless something fails.

Transient failures (throttling, connection resets, timeouts, damaged bodies, expired credentials)
are retried with exponential backoff; others raise at once. The object is requested by its key
exactly as listed, and the answer is compared with the listing: length, ETag and, if the ETag is
one, MD5. A changed object is never mistaken for the listed one.

An attempt ends after READ_SECONDS without a byte, or at fewer than SLOWEST bytes per second; no
attempt starts after TOTAL_SECONDS. A server that sends the headers, or the body of an error, one
byte at a time is not caught.
"""

import contextlib
import hashlib
import logging
import os
import random
import re
import stat
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any, TypeVar

from segray.pixels.limits import Memory
from segray.storage.failures import FetchError, PassingError, StaleError, explain_failure
from segray.storage.requests import REPEATED, count
from segray.storage.s3 import forget_client, s3_client, split_uri
from segray.storage.uri import is_local

log = logging.getLogger(__name__)

#: Larger files are not read: no image within the limit on pixels needs as many bytes.
MAX_FILE_BYTES = 1 << 29

#: Limits of one attempt: seconds until connected, seconds without a byte, bytes per second.
CONNECT_SECONDS = 10.0
READ_SECONDS = 10.0
SLOWEST = 8192

#: Limits of all attempts: their number, and the seconds after which none is started.
ATTEMPTS = 6
TOTAL_SECONDS = 120.0

#: Exponential backoff: the upper limit of the pause after the first failure, in seconds, which
#: doubles with each failure up to the longest pause. The pause is random ("full jitter",
#: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that throttled
#: processes do not retry at the same time.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 20.0

#: If credentials are refused, clients younger than this, in seconds, are kept.
RENEWAL_SECONDS = 1.0

_CHUNK = 1 << 17

_Answer = TypeVar("_Answer")


def fetch(
    uri: str,
    size: int | None = None,
    etag: str | None = None,
    on_retry: Callable[[str], None] | None = None,
    on_length: Callable[[int], None] | None = None,
    stopped: Event | None = None,
    limit: int | None = None,
) -> bytes:
    """Fetch the content of a file or object. Thread-safe.

    Args:
        uri: a local absolute path or an s3:// URI, as listed.
        size: the listed size in bytes; None if unknown.
        etag: the listed `segray.storage.listing.Entry.etag`; None or empty if unknown.
        on_retry: called with the kind of each failure that is retried.
        on_length: called in each attempt with the number of bytes that are about to be read; it may
            block until there is memory for them.
        stopped: once it is set, there are no more retries.
        limit: the maximum number of bytes; default: `MAX_FILE_BYTES`.

    Raises:
        FetchError: the object cannot be fetched, or is no longer the one that was listed.
    """
    limit = MAX_FILE_BYTES if limit is None else limit
    if size is not None and size > limit:
        raise _too_large(size, limit)
    if is_local(uri):
        return _read_file(uri, size, etag, on_length, limit)
    return retry_read(uri, _Request(uri, size, etag, on_length, limit).send, on_retry, stopped)


@contextlib.contextmanager
def fetched(
    memory: Memory,
    uri: str,
    size: int | None = None,
    etag: str | None = None,
    on_retry: Callable[[str], None] | None = None,
    stopped: Event | None = None,
) -> Iterator[bytes]:
    """Fetch the content of a file or object, and reserve memory for it while the block runs.

    Args:
        memory: has to have room for the content, which is waited for.
        uri: see `fetch`, as the other arguments.

    Raises:
        FetchError: see `fetch`.
    """
    with contextlib.ExitStack() as room:

        def make_room(length: int) -> None:
            room.enter_context(memory.reserved(length))

        def note_retry(kind: str) -> None:
            room.close()  # until the next attempt
            if on_retry:
                on_retry(kind)

        yield fetch(uri, size, etag, note_retry, make_room, stopped)


def retry_read(
    uri: str,
    send: Callable[[Any], _Answer],
    on_retry: Callable[[str], None] | None = None,
    stopped: Event | None = None,
) -> _Answer:
    """Send a read request, and retry transient failures as `retry` does.

    Args:
        uri: the URI that is read.
        send: makes one attempt, given an S3 client.
        on_retry: called with the kind of each failure that is retried.
        stopped: once it is set, there are no more retries.

    Raises:
        FetchError: all attempts failed, or a failure is not transient.
    """
    begun, attempts = time.monotonic(), 0

    def request() -> _Answer:
        nonlocal attempts
        attempts += 1
        return send(s3_client(CONNECT_SECONDS, READ_SECONDS))

    try:
        return retry(uri, request, on_retry, stopped)
    except Exception as error:
        # Whatever a store raises for one object concerns that object only.
        failure = _classify(uri, error)
    if not isinstance(failure, PassingError):
        raise failure
    given_up = f"given up at attempt {attempts}, after {time.monotonic() - begun:.0f} s"
    raise FetchError(failure.kind, f"{failure.message}; {given_up}")


def retry(
    uri: str,
    request: Callable[[], _Answer],
    on_retry: Callable[[str], None] | None = None,
    stopped: Event | None = None,
) -> _Answer:
    """Send a request, and retry transient failures with exponential backoff.

    Args:
        uri: the URI that the request concerns.
        request: makes one attempt; it gets its client from `s3_client`.
        on_retry: called with the kind of each failure that is retried.
        stopped: once it is set, there are no more retries.

    Raises:
        Exception: the exception of the last attempt.
    """
    stopped = stopped or Event()
    begun = time.monotonic()
    attempt = 0
    while True:
        attempt += 1
        try:
            return request()
        except Exception as error:
            failure = _classify(uri, error)
            if isinstance(failure, StaleError):
                forget_client(RENEWAL_SECONDS)
            pause = _draw_pause(attempt)
            is_last = attempt == ATTEMPTS or time.monotonic() - begun + pause > TOTAL_SECONDS
            if is_last or not isinstance(failure, PassingError) or stopped.is_set():
                raise
        log.debug(f"{uri}: {failure.message}; attempt {attempt + 1} in {pause:.1f} s")
        if on_retry:
            on_retry(failure.kind)
        if stopped.wait(pause):
            raise failure
        count(REPEATED)


def _classify(uri: str, error: Exception) -> FetchError:
    if isinstance(error, FetchError):
        return error.with_traceback(None)  # its frames hold the body
    return explain_failure(uri, error)


def _draw_pause(attempt: int) -> float:
    """Draw the pause before the next attempt, in seconds."""
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)))


class _Request:
    """A request for an S3 object, with the deviations of earlier answers."""

    # Buckets whose ETags look like MD5 but are not, as some stores make them.
    _other_etags: set[str] = set()  # noqa: RUF012

    def __init__(
        self,
        uri: str,
        size: int | None,
        etag: str | None,
        on_length: Callable[[int], None] | None,
        limit: int,
    ) -> None:
        if not uri.startswith("s3://"):
            raise FetchError("Unsupported", "is neither a path nor s3://bucket/key")
        self.bucket, self.key = split_uri(uri)
        if not self.bucket or not self.key:
            raise FetchError("NotFound", "names no object: an object is s3://bucket/key")
        self.size = size
        self.etag = _bare(etag)
        self.on_length = on_length
        self.limit = limit
        self.seen: set[object] = set()

    def send(self, client: Any) -> bytes:
        """Make one attempt.

        Raises:
            FetchError: the answer is not what was listed.
            Exception: the exceptions of botocore and urllib3.
        """
        answer = client.get_object(Bucket=self.bucket, Key=self.key)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        etag = _bare(headers.get("etag"))
        length = headers.get("content-length", "")
        with answer["Body"] as stream:
            if self.etag and etag and etag != self.etag:
                raise self._changed(etag)
            if length.isdecimal():
                self._check_length(int(length), etag)
            if self.on_length:
                self.on_length(int(length) if length.isdecimal() else self.limit)
            content = read_body(stream, headers, self.limit)
        self._check_length(len(content), etag)
        self._check_digest(content, etag, headers)
        return content

    def _check_length(self, length: int, etag: str) -> None:
        if self.size is None:
            if length > self.limit:
                raise _too_large(length, self.limit)
        elif length != self.size:
            # The listed ETag with another length means a damaged answer, not another object.
            raise _truncated(length, self.size) if self.etag and etag else self._changed(length)

    def _check_digest(self, content: bytes, etag: str, headers: dict[str, str]) -> None:
        # The ETag is the MD5 unless the object was uploaded in parts or is encrypted with a key of
        # KMS or of the customer: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
        encrypted = (
            headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
            or "x-amz-server-side-encryption-customer-algorithm" in headers
        )
        etag = self.etag or etag
        if (
            encrypted
            or self.bucket in self._other_etags
            or not re.fullmatch("[0-9a-f]{32}", etag)
            or (digest := hashlib.md5(content, usedforsecurity=False).hexdigest()) == etag
        ):
            return
        if not self._is_repeated(digest):
            raise PassingError(
                "Corrupted", "the store's answer is damaged: its MD5 is not its ETag"
            )
        # The same content twice is what the store holds, so its ETags are not MD5.
        self._other_etags.add(self.bucket)

    def _changed(self, evidence: object) -> FetchError:
        message = "has changed since it was listed; the next run takes it up"
        return (FetchError if self._is_repeated(evidence) else PassingError)("Changed", message)

    def _is_repeated(self, evidence: object) -> bool:
        """Return True if an earlier answer deviated in the same way, unlike random faults."""
        repeated = evidence in self.seen
        self.seen.add(evidence)
        return repeated


def _bare(etag: str | None) -> str:
    return (etag or "").removeprefix("W/").strip('"')


def read_body(stream: Any, headers: dict[str, str], limit: int = MAX_FILE_BYTES) -> bytes:
    """Read the whole body of an answer.

    Args:
        stream: the stream beneath botocore's, which a ``with`` block of that gives.
        headers: the headers of the answer, with names in lower case.
        limit: the maximum number of bytes.

    Raises:
        FetchError: the body is too long, too slow, or not as long as the headers say.
        Exception: the exceptions of botocore and urllib3.
    """
    text = headers.get("content-length", "")
    length = int(text) if text.isdecimal() else None
    # One buffer: the allocator would not return many small ones, freed by two dozen threads.
    content = bytearray(length or 0)
    received = checked = 0
    due = time.monotonic() + READ_SECONDS
    # The stream beneath botocore's has read1. A plain read waits for all of its bytes, so a server
    # that sends one byte before each timeout would block it forever.
    while chunk := stream.read1(_CHUNK):
        content[received : received + len(chunk)] = chunk
        received += len(chunk)
        if received > limit:
            raise _too_large(received, limit)
        now = time.monotonic()
        if now > due:
            if received - checked < SLOWEST * READ_SECONDS:
                raise PassingError(
                    "TimedOut", f"the store sends less than {SLOWEST} bytes a second"
                )
            checked, due = received, now + READ_SECONDS
    if length is not None and received != length:
        raise _truncated(received, length)
    return bytes(memoryview(content)[:received])


def _read_file(
    path: str,
    size: int | None,
    etag: str | None,
    on_length: Callable[[int], None] | None,
    limit: int,
) -> bytes:
    try:
        # Non-blocking, because a pipe of this name would wait for a writer.
        with open(path, "rb", opener=open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FetchError("NotAFile", "is no regular file")
            if on_length:
                on_length(min(os.fstat(file.fileno()).st_size, limit))
            content = file.read(limit + 1)
            status = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        failure = explain_failure(path, error)
    else:
        if len(content) > limit:
            raise _too_large(status.st_size, limit)
        if len(content) == (status.st_size if size is None else size) and (
            not etag or etag == f"{status.st_mtime_ns:x}"
        ):
            return content
        failure = FetchError("Changed", "has changed since it was listed; the next run takes it up")
    raise failure


def open_at_once(path: str, flags: int) -> int:
    """Open a file, as an opener of `open`, without waiting for a writer if it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _too_large(size: int, limit: int) -> FetchError:
    return FetchError("TooLarge", f"is {size} bytes large, over the limit of {limit}")


def _truncated(length: int, expected: int) -> PassingError:
    return PassingError("Truncated", f"the store sent {length} of {expected} bytes")

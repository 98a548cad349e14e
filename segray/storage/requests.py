"""Requests: how many this process has sent to S3, by operation, for the bill of a run."""

import threading
from collections import Counter
from typing import Any

#: The name under which requests are counted that repeat one which had failed. They are counted
#: under their operations, too.
REPEATED = "repeated"

_sent: Counter[str] = Counter()
_lock = threading.Lock()


def count_requests_of(client: Any) -> None:
    """Count the requests of a client of botocore from now on, each attempt and redirect by itself.

    Args:
        client: a client of S3.
    """
    client.meta.events.register("before-send.s3", _note)


def _note(event_name: str, **_: Any) -> None:
    count(event_name.rpartition(".")[2])


def count(name: str) -> None:
    """Count a request.

    Args:
        name: its operation, such as ``GetObject``, or `REPEATED`.
    """
    with _lock:
        _sent[name] += 1


def requests_sent() -> Counter[str]:
    """Return the requests that this process has sent so far, by operation and `REPEATED`.

    Those of s3fs are not among them: it sends a few that look whether something exists, and those
    that delete.
    """
    with _lock:
        return Counter(_sent)

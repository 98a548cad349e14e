"""Failures: the reason why a file or object cannot be fetched, and whether a retry may succeed."""

import re

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError
from urllib3.exceptions import ReadTimeoutError as BodyTimeoutError

from segray.storage.access import explain_refusal
from segray.storage.uri import describe_error

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}
_STORES_OWN = {"RequestTimeout", "InternalError"}
_ARCHIVED = {"InvalidObjectState", "ObjectNotInActiveTierError"}


class FetchError(Exception):
    """A file or object cannot be fetched. The error can be pickled.

    Attributes:
        kind: a name to group by, such as ``NotFound``.
        message: the reason for a person: one line, without secrets.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return self.message


class PassingError(FetchError):
    """A transient failure: a retry may succeed."""


class StaleError(PassingError):
    """A failure that a new client may avoid, because it looks up the credentials again."""


def explain_failure(uri: str, error: BaseException) -> FetchError:
    """Convert an exception of botocore, urllib3 or the file system."""
    if isinstance(error, ClientError):
        return _explain_answer(error)
    message = describe_error(uri, error)
    if isinstance(error, NoCredentialsError | CredentialRetrievalError | MetadataRetrievalError):
        return StaleError("NoCredentials", message)
    if isinstance(error, ConnectTimeoutError):
        return PassingError("TimedOut", message)
    if isinstance(error, ReadTimeoutError | BodyTimeoutError):
        return PassingError("TimedOut", "the store stopped sending")
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return FetchError(
            "Untrusted",
            "the store's certificate cannot be verified: check the endpoint, or name the file of "
            "its authority in AWS_CA_BUNDLE",
        )
    if isinstance(error, ConnectionError):
        return PassingError("ConnectionFailed", message)
    if isinstance(error, HTTPClientError | HTTPError | ResponseParserError):
        return PassingError("ConnectionFailed", "the connection broke, or the answer was no HTTP")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FetchError("NotFound", "no such file")
    if isinstance(error, IsADirectoryError):
        return FetchError("NotAFile", "is a folder")
    if isinstance(error, PermissionError):
        return FetchError("Forbidden", message)
    kind = "Unreadable" if isinstance(error, OSError | BotoCoreError) else type(error).__name__
    return FetchError(kind, message)


def _explain_answer(error: ClientError) -> FetchError:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # The message of the store is left out, because it may repeat what was sent.
    code = re.sub(r"\W", "", str(error.response.get("Error", {}).get("Code", "")))[:60]
    which = f"({code}, HTTP {status})"
    if code == "RequestTimeTooSkewed":
        return StaleError("ClockSkewed", f"this machine's clock is not the store's {which}: set it")
    if code in _EXPIRED:
        return StaleError("CredentialsExpired", f"the credentials have expired {which}: renew them")
    if code in _THROTTLED or status in (429, 503):
        return PassingError("Throttled", f"the store asks to slow down {which}")
    if code in _STORES_OWN or status == 408 or (status >= 500 and status != 501):
        return PassingError("StoreFailed", f"the store has a fault of its own {which}")
    if code in _ARCHIVED:
        return FetchError("Archived", f"the object is in an archive {which}: restore it first")
    if status == 404:
        return FetchError("NotFound", f"no such bucket or key {which}")
    kind = "Forbidden" if status in (401, 403) else "Refused"
    return FetchError(kind, explain_refusal(error) or f"the store refuses to send it {which}")

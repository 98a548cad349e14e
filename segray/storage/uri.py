"""URIs: one kind of name for files on a local disk and objects in S3.

A URI is a local path or ``s3://bucket/key``. Endpoint, region and credentials of S3 come from the
standard AWS environment and nowhere else.
"""

import contextlib
import os
import re
from collections.abc import Iterator

import fsspec

from segray.errors import InputError
from segray.storage.access import S3Access, explain_refusal
from segray.storage.s3 import CHECKSUMS, is_access_point, split_uri

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def absolute_uri(uri: str) -> str:
    """Convert a URI to the form that means the same in every process and on every node.

    Raises:
        InputError: the scheme is neither local nor S3, the URI contains credentials, or it begins
            with a home folder that is unknown.
    """
    scheme = _SCHEME.match(uri)
    if not scheme:
        # Unlike this function, Path would take ./~ for ~ as well.
        path = os.path.expanduser(uri)  # noqa: PTH111
        if path.startswith("~"):
            raise InputError(
                f"{uri} begins with a home folder that is unknown here: give the whole path, or "
                "put ./ before a name that begins with ~"
            )
        # Not only absolute but normalised, because the ids of images depend on the spelling.
        return os.path.abspath(path)  # noqa: PTH100
    if scheme[1] == "file":
        return os.path.abspath(uri[len("file://") :])  # noqa: PTH100
    if scheme[1] != "s3":
        raise InputError(f"{scheme[0]}... is not supported: give a local path or s3://bucket/key")
    bucket, key = split_uri(uri)
    if bucket.startswith("arn:") and not is_access_point(bucket):
        raise InputError(
            "of ARNs, that of an access point may stand for a bucket: give s3://bucket/key, or "
            "s3://ARN/key or s3://alias/key of an access point"
        )
    if ("@" in bucket or ":" in bucket) and not is_access_point(bucket):
        raise InputError(
            "an s3:// URI must not hold credentials: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY in the environment, or use an instance profile"
        )
    if not bucket:
        raise InputError(f"{uri} names no bucket: give s3://bucket/key")
    return f"s3://{bucket}/{key}".rstrip("/")


def is_local(uri: str) -> bool:
    """Return True if the URI is a path on this machine's file systems."""
    return not _SCHEME.match(uri)


def join_uri(uri: str, *parts: str) -> str:
    """Append names to a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def file_system(uri: str) -> fsspec.AbstractFileSystem:
    """Return the file system of a URI.

    Listings are not cached, because other processes write while this one reads.
    """
    if is_local(uri):
        return fsspec.filesystem("file")
    access = S3Access.of_environment()
    return fsspec.filesystem(
        "s3",
        use_listings_cache=False,
        anon=access.s3_unsigned,
        requester_pays=access.s3_requester_pays,
        s3_additional_kwargs=access.parameters,
        # botocore itself reads AWS_DEFAULT_REGION only.
        config_kwargs={**CHECKSUMS, "region_name": os.environ.get("AWS_REGION")},
    )


@contextlib.contextmanager
def explain_errors(uri: str, doing: str = "read") -> Iterator[None]:
    """Convert errors of a file system to an `InputError` that has the URI and a way out."""
    try:
        yield
    except _store_errors() as error:
        raise InputError(f"cannot {doing} {uri}: {describe_error(uri, error)}") from error


def lies_in(uri: str, folder: str) -> bool:
    """Return True if an absolute URI is that of a folder, or of something below it."""
    return f"{uri}/".startswith(f"{folder.rstrip('/')}/")


def describe_error(uri: str, error: BaseException) -> str:
    """Describe an error with a URI and a way out of it, on one line and without secrets."""
    kind = type(error).__name__
    if kind == "ClientError":
        kind = getattr(error, "response", {}).get("Error", {}).get("Code", kind)
    if kind == "ValueError" and "Invalid endpoint" in str(error):
        # The endpoint is not repeated, because it may contain a password.
        return "the endpoint in AWS_ENDPOINT_URL is no URL: give it as https://host:port"
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        return (
            "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run where "
            "an instance profile provides them, or give --s3-unsigned if the bucket is public"
        )
    if kind in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionError"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        where = "the endpoint in AWS_ENDPOINT_URL" if endpoint else "S3"
        return f"{where} does not answer: check the network, the endpoint and AWS_REGION"
    if kind == "ResponseParserError":
        return "what came is no answer of S3: check AWS_ENDPOINT_URL"
    if isinstance(error, FileNotFoundError) or kind in ("NoSuchBucket", "NoSuchKey", "404"):
        return "no such file or folder" if is_local(uri) else "no such bucket or key"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, and not a file: give another path"
    if isinstance(error, NotADirectoryError):
        return "it is a file, or in one, and not in a folder: give another path"
    if refusal := explain_refusal(error):
        return refusal
    if isinstance(error, PermissionError):
        return "this user may not do that: check the permissions"
    # A URL in an error may contain the password of an endpoint or of a proxy.
    return omit_passwords(" ".join(f"{kind}: {error}".split()))[:300]


def omit_passwords(text: str) -> str:
    """Return a text without the users and passwords in its URLs."""
    return re.sub(r"//[^/\s]*@", "//", text)  # up to the last @, as a password may contain some


def _store_errors() -> tuple[type[Exception], ...]:
    # Arrow's errors for damaged files and botocore's for bad endpoints are ValueErrors.
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
    except ImportError:
        return (OSError, ValueError)
    return (OSError, ValueError, BotoCoreError, ClientError, ResponseParserError)


def exists(uri: str) -> bool:
    """Return True if a file, an object, a folder or a key prefix exists.

    Raises:
        InputError: the store cannot be asked.
    """
    with explain_errors(uri):
        bucket, key = split_uri(uri)
        if is_local(uri) or key:
            return bool(file_system(uri).exists(uri))
        # For a bucket alone, s3fs takes every failure for a no. (And HEAD cannot say that the
        # requester pays.)
        try:
            file_system(uri).call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
        except FileNotFoundError:
            return False
        return True

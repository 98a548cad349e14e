"""A proxy before an S3 endpoint that has the ways of some stores and buckets."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from s3fs import S3FileSystem

from segray.storage.access import VARIABLES, S3Access
from segray.storage.s3 import forget_client
from tests.endpoints.proxy import CountingProxy
from tests.endpoints.server import Head

#: What a store may be like; see `PeculiarStore`.
WAYS = (
    "no_conditions",  # a conditional write is answered with 501 NotImplemented
    "conditions_ignored",  # If-Match and If-None-Match of a write have no effect
    "no_checksums",  # the checksums that S3 knows since 2022 are refused, as are chunks with them
    "encryption",  # a bucket policy denies writes that name no encryption
    "requester_pays",  # every request has to say that the requester pays
    "unsigned",  # signatures are refused, as those of keys that the store does not know
)

_DENIED = (b"403 Forbidden", b"AccessDenied", b"Access Denied")
_ENCRYPTION = b"x-amz-server-side-encryption"
_KEY = b"x-amz-server-side-encryption-aws-kms-key-id"
_CONDITIONS = (b"if-match", b"if-none-match")


class PeculiarStore(CountingProxy):
    """Passes requests on to another endpoint, unless its ways are against them.

    Attributes:
        refused: the requests that it refused, as ``METHOD TARGET CODE``.
    """

    def __init__(self, target: str, *ways: str, kms_key: str = "") -> None:
        """Prepare it; it listens in a ``with`` block.

        Args:
            target: the URL of the endpoint behind it.
            ways: of WAYS.
            kms_key: the key that the bucket policy demands; empty: any encryption will do.
        """
        super().__init__(target)
        assert set(ways) <= set(WAYS)
        self._ways, self._kms_key = ways, kms_key.encode()
        self.refused: list[str] = []

    async def _answer(
        self,
        request: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: object,
    ) -> bool:
        method, target, _ = request.start.split(b" ")
        refusal = self._refusal(request, method)
        if refusal:
            self.refused.append(b" ".join([method, target, refusal[1]]).decode())
            return await self.refuse(request, reader, writer, *refusal)
        if "unsigned" in self._ways:
            # To the endpoint behind, the bucket is no public one.
            request = request.replaced(b"Authorization", b"AWS somebody:something")
        if "conditions_ignored" in self._ways and method == b"PUT":
            for name in _CONDITIONS:
                request = request.without(name)
        return await super()._answer(request, reader, writer, upstream)

    def _refusal(self, request: Head, method: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Status, code and message of the answer that a request gets, if it is refused."""
        ways = self._ways
        if "unsigned" in ways and request.get(b"authorization"):
            return b"403 Forbidden", b"InvalidAccessKeyId", b"The key you provided does not exist"
        if "requester_pays" in ways and request.get(b"x-amz-request-payer") != b"requester":
            return _DENIED
        if "encryption" in ways and _makes_object(request, method):
            is_denied = self._kms_key and request.get(_KEY) != self._kms_key
            if is_denied or not request.get(_ENCRYPTION):
                return _DENIED
        checksum = next((name for name, _ in request.fields if _is_of_checksum(name)), b"")
        if "no_checksums" in ways and (checksum or b"aws-chunked" in request.to_bytes()):
            return b"400 Bad Request", b"InvalidArgument", b"Unsupported header '%b'" % checksum
        if "no_conditions" in ways and method == b"PUT" and any(map(request.get, _CONDITIONS)):
            message = b"A header you provided implies functionality that is not implemented"
            return b"501 Not Implemented", b"NotImplemented", message
        return None


def _makes_object(request: Head, method: bytes) -> bool:
    """Whether it is a PutObject or a CreateMultipartUpload: parts name no encryption."""
    path, _, query = request.start.split(b" ")[1].partition(b"?")
    if not path[1:].partition(b"/")[2]:
        return False
    return (method == b"PUT" and b"partNumber=" not in query) or (
        method == b"POST" and query.partition(b"=")[0] == b"uploads"
    )


def _is_of_checksum(name: bytes) -> bool:
    name = name.lower()
    # That of the mode is in requests for objects, whose answers then have it.
    return name.startswith((b"x-amz-checksum-", b"x-amz-sdk-checksum-", b"x-amz-trailer")) and (
        name != b"x-amz-checksum-mode"
    )


@contextmanager
def asking(url: str, **access: object) -> Iterator[None]:
    """While the block runs, this process asks the endpoint there, and as `S3Access` says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        for name in VARIABLES:
            patch.setenv(name, "")
        S3Access(**access).set_environment()  # type: ignore[arg-type]
        forget_clients()
        try:
            yield
        finally:
            forget_clients()


def forget_clients() -> None:
    """Let the next request look at the environment anew."""
    forget_client()
    S3FileSystem.clear_instance_cache()

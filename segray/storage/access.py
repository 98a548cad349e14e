"""Access: request settings that some buckets need, and explanations of refused requests.

The standard AWS environment has no variables for these settings. They are nevertheless read from
the environment, like the endpoint, the region and the credentials, because each process of a job
sends its own requests. The flags of a job set the environment of that job.
"""

import os
import re
from dataclasses import dataclass

#: The variables that `S3Access` is read from: 1 or empty, 1 or empty, and an algorithm or key.
VARIABLES = ("SEGRAY_S3_REQUESTER_PAYS", "SEGRAY_S3_UNSIGNED", "SEGRAY_S3_SSE")

_ALGORITHMS = ("AES256", "aws:kms", "aws:kms:dsse")

_WRITES = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
_UNKNOWN_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken")
_NOT_KNOWN = ("NotImplemented", "InvalidRequest", "InvalidArgument", "501")


@dataclass(frozen=True)
class S3Access:
    """Settings for buckets that need special requests."""

    s3_requester_pays: bool = False
    """Pay for requests to a requester-pays bucket; or set SEGRAY_S3_REQUESTER_PAYS=1."""
    s3_unsigned: bool = False
    """Send unsigned requests, for public buckets when there are no credentials; or set
    SEGRAY_S3_UNSIGNED=1."""
    s3_sse: str | None = None
    """Server-side encryption of everything that is written: AES256, aws:kms, or the ARN of a KMS
    key; or set SEGRAY_S3_SSE."""

    @classmethod
    def of_environment(cls) -> "S3Access":
        """Read the settings from the environment of this process."""
        pays, unsigned, encryption = (os.environ.get(name, "") for name in VARIABLES)
        return cls(pays not in ("", "0"), unsigned not in ("", "0"), encryption or None)

    def set_environment(self) -> None:
        """Set the environment of this process and its children; keep what was not given."""
        values = ("1" * self.s3_requester_pays, "1" * self.s3_unsigned, self.s3_sse)
        os.environ.update(
            {name: text for name, text in zip(VARIABLES, values, strict=True) if text}
        )

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters, by botocore's names, of those S3 operations that have them."""
        parameters = {"RequestPayer": "requester"} if self.s3_requester_pays else {}
        if self.s3_sse in _ALGORITHMS:
            parameters["ServerSideEncryption"] = self.s3_sse
        elif self.s3_sse:
            parameters |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.s3_sse}
        return parameters


def explain_refusal(error: BaseException) -> str:
    """Explain why a store refused a request, and what to do about it; empty if that is unknown.

    Args:
        error: a `botocore.exceptions.ClientError`, or the error that s3fs derived from one.
    """
    while not hasattr(error, "operation_name"):  # only a ClientError has one
        cause = error.__cause__ or error.__context__
        if cause is None:
            return ""
        error = cause
    response = getattr(error, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = re.sub(r"\W", "", str(response.get("Error", {}).get("Code", "")))[:60]
    which = f"({code}, HTTP {status})"
    # The message of the store is left out, because it may repeat what was sent.
    text = str(response.get("Error", {}).get("Message", "")).lower()
    if code in _UNKNOWN_KEYS:
        return (
            f"the store does not take these credentials {which}: if the bucket is public, give "
            "--s3-unsigned; else: correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or check "
            "the permissions"
        )
    if code.startswith("KMS") or (status == 400 and "encrypt" in text):
        return (
            f"the store refuses the encryption {which}: give --s3-sse with AES256, aws:kms or the "
            "ARN of a key that these credentials may use, or leave it out"
        )
    if status in (401, 403):
        return _explain_denial(which, getattr(error, "operation_name", "") in _WRITES)
    if code in _NOT_KNOWN:
        of = "the checksum in" if "checksum" in text or "content-md5" in text else "a part of"
        return f"the store does not take {of} the request {which}: it is not enough like S3"
    return ""


def _explain_denial(which: str, is_write: bool) -> str:
    access = S3Access.of_environment()
    who = "requests without a signature" if access.s3_unsigned else "these credentials"
    ways = []
    if not access.s3_requester_pays:
        ways.append("if the bucket's requesters pay, give --s3-requester-pays; else: ")
    if is_write and access.s3_sse:
        ways.append("if its policy demands another encryption, correct --s3-sse; else: ")
    elif is_write:
        ways.append("if its policy demands encryption, give --s3-sse; else: ")
    return f"{who} may not do that {which}: {''.join(ways)}check the permissions"

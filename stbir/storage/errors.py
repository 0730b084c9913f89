"""Storage errors → `InputError` with a remedy for the file system and the cause."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from stbir.errors import InputError

STORAGE_ERRORS = (OSError, BotoCoreError, ClientError)
# There is no file of that name; another read gives the same.
MISSING_FILE_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_RIGHTS = "give this key the rights to list, read, write and delete there"
_ENDPOINT = "check the network and AWS_ENDPOINT_URL"
_LATER = "the server is overloaded; run the same command again later, or with fewer workers"
# Error codes of S3: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# HEAD requests have no error document; their code is the HTTP status.
_BY_CODE = {
    "NoSuchBucket": "create the bucket, or correct its name",
    "InvalidBucketName": "correct the name of the bucket",
    "AccessDenied": _RIGHTS,
    "403": _RIGHTS,
    "InvalidAccessKeyId": f"the key is unknown: {_KEYS} for this server",
    "SignatureDoesNotMatch": "the secret does not belong to the key: set AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session token has expired: renew the AWS_* variables",
    "RequestTimeTooSkewed": "set this machine's clock (NTP)",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "NotImplemented": "the server lacks this operation; use another one",
    "SlowDown": _LATER,
    "ServiceUnavailable": _LATER,
    "503": _LATER,
    "QuotaExceeded": "remove files, or raise the quota",
    "XMinioStorageFull": "free space on the server",
    "NoSuchKey": "check that the file exists",
    "404": "check that the file exists",
}
_BY_ERRNO = {
    errno.ENOSPC: "free space on this disk, or choose a folder on another one",
    errno.EDQUOT: "remove files, or raise the quota of this user",
    errno.EROFS: "the file system is mounted read-only; choose another folder",
    errno.EACCES: "give this user permission to read and write there, or choose another folder",
    errno.EPERM: "give this user permission to read and write there, or choose another folder",
    errno.ENOENT: "check that the path exists",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EISDIR: "the path is a folder; give a file",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EFBIG: "the file system cannot hold a file of this size; choose another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "check the disk, or choose a folder on another one",
    errno.ESTALE: "mount the network file system again",
}


def storage_error(uri: str, error: BaseException) -> InputError:
    """The InputError of one line for a storage error at `uri`."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{uri}: cannot be read or written ({reason}); {_remedy(uri, error)}")


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Raise storage errors of the body as `storage_error` of `uri`."""
    try:
        yield
    except STORAGE_ERRORS as error:
        raise storage_error(uri, error) from error


def _remedy(uri: str, error: BaseException) -> str:
    for cause in _causes(error):
        if isinstance(cause, ClientError) and (code := cause.response["Error"].get("Code", "")) in _BY_CODE:
            return _BY_CODE[code]
        if isinstance(cause, NoCredentialsError | PartialCredentialsError):
            return _KEYS
        if isinstance(cause, ConnectionError | HTTPClientError):
            return _ENDPOINT
    if uri.startswith(("s3://", "s3a://")):
        return "check the URI, that the bucket exists, and that the AWS_* variables are set"
    return _BY_ERRNO.get(_errno(error), "check the path or URI")


def _errno(error: BaseException) -> int:
    """The error number; 0 if there is none."""
    in_text = re.search(r"\(os error (\d+)\)", str(error))  # of libraries in Rust (Lance)
    return getattr(error, "errno", None) or (int(in_text[1]) if in_text else 0)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__

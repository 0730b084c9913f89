"""The remedy of a storage error fits the file system and the cause."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from s3fs.errors import translate_boto_error

from stbir.errors import InputError
from stbir.storage import access_check, folder
from stbir.storage.errors import storage_error
from stbir.storage.folder import Folder, read_uri
from stbir.storage.retry import is_transient

DISK = {
    errno.ENOSPC: "free space on this disk",
    errno.EDQUOT: "raise the quota of this user",
    errno.EROFS: "mounted read-only",
    errno.EACCES: "give this user permission",
    errno.ENOENT: "check that the path exists",
    errno.ENOTDIR: "a part of the path is a file",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EIO: "check the disk",
    errno.EINTR: "check the path or URI",
}
S3 = {
    "NoSuchBucket": "create the bucket",
    "AccessDenied": "give this key the rights to list, read, write and delete",
    "InvalidAccessKeyId": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for this server",
    "SignatureDoesNotMatch": "set AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew the AWS_",
    "SlowDown": "run the same command again later",
    "QuotaExceeded": "raise the quota",
    "ACodeOfTheFuture": "check the URI, that the bucket exists",
}


@pytest.mark.parametrize(("code", "remedy"), DISK.items(), ids=map(errno.errorcode.get, DISK))
def test_the_remedy_of_a_disk_fits_the_error_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    def fail(path: str, data: bytes) -> None:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(folder, "_write_then_rename", fail)
    with pytest.raises(InputError, match=remedy) as error:
        Folder(str(tmp_path)).write("x", b"")
    assert str(error.value).startswith(f"{tmp_path}: cannot be read or written")
    assert "AWS" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("uri", ["{folder}", "file://{folder}"])
def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path, uri: str) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match=r"/x\.png: .*; the path is a folder; give a file"):
        read_uri(uri.format(folder=tmp_path / "x.png"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_or_read_only_disk_is_not_retried(code: int) -> None:
    assert not is_transient(OSError(code, os.strerror(code)))


@pytest.mark.parametrize(("code", "remedy"), S3.items(), ids=S3)
def test_the_remedy_of_s3_fits_the_error_code(code: str, remedy: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")
    for raised in (error, translate_boto_error(error)):
        message = str(storage_error("s3://b/x", raised))
        assert message.startswith("s3://b/x: cannot be read or written (")
        assert remedy in message


def test_missing_credentials_and_servers_have_their_own_remedies() -> None:
    assert "set AWS_ACCESS_KEY_ID" in str(storage_error("s3://b", NoCredentialsError()))
    unreachable = EndpointConnectionError(endpoint_url="http://x")
    assert "check the network and AWS_ENDPOINT_URL" in str(storage_error("s3://b", unreachable))


def test_a_missing_bucket_is_named_with_its_remedy(s3: str) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    attempts: list[Callable[[Folder], object]] = [
        lambda missing: missing.write("y", b""),
        lambda missing: access_check.check_access(missing),
        lambda missing: access_check.check_exclusive_create(missing),
    ]
    for attempt in attempts:
        with pytest.raises(InputError, match=r"s3://no-such-bucket-here/x: .*create the bucket"):
            attempt(Folder("s3://no-such-bucket-here/x"))
    with pytest.raises(InputError, match=r"s3://no-such-bucket-here/x/y: .*(create the bucket|file exists)"):
        read_uri("s3://no-such-bucket-here/x/y")

"""Versions of files change with their content, and are unknown where they might not."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from stbir.storage.file_version import info_version, read_versions

OLD, RECENT = datetime(2026, 1, 2, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"a1"', "LastModified": RECENT}, '7 "a1"'),
        ({"etag": "b2", "mtime": 5.0}, "7 b2"),
        ({"last_modified": OLD}, f"7 {int(OLD.timestamp())}000000000"),
        ({"mtime": 5.5}, "7 5500000000"),
        ({"mtime": RECENT}, None),  # it may change again within the tick of a clock
        ({"mtime": RECENT.timestamp()}, None),
        ({"ETag": "", "LastModified": "yesterday"}, None),
        ({}, None),
    ],
)
def test_version_of_a_description(info: dict[str, object], version: str | None) -> None:
    assert info_version({"size": 7, **info}) == version


def test_versions_of_files_anywhere(s3: str, tmp_path: Path) -> None:
    for name, data, age_s in (("old", b"123", 10), ("new", b"123", 0)):
        (tmp_path / name).write_bytes(data)
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    fsspec.filesystem("s3").pipe(f"{s3}/versions/a b.png", b"12345")
    fsspec.filesystem("memory").pipe("/versions/x", b"1")
    old = f"{tmp_path}/old"
    uris = [old, f"file://{old}", f"{tmp_path}/new", f"{tmp_path}/none", "\0", None, "https://127.0.0.1/x"]
    uris += [
        f"{s3}/versions/a b.png",
        f"{s3}/versions/none",
        "memory://versions/x",
        "nofs://x",
        "s3://a?versionId=1",
    ]
    local, same, *unknown, etag, _, _, _, _ = read_versions(uris)
    assert local == same == f"3 {os.stat(old).st_mtime_ns}"
    assert unknown == [None] * 5
    assert etag is not None
    assert etag.startswith("5 ")
    assert read_versions(uris)[8:] == [None] * 4

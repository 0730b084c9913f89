"""A name is not a URL: fsspec, Lance, pyarrow and Ray open the same file for every name."""

import uuid
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.fs
import pytest
import s3fs
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ray.data.datasource.path_util import _resolve_paths_and_filesystem

from stbir.errors import InputError
from stbir.gallery.gallery import open_table
from stbir.gallery.table import TABLE, table_uri
from stbir.storage.folder import Folder, read_uri
from stbir.storage.uri import quoted_uri, resolve_uri

SPECIAL = ["g#1", "g#2", "g?x", "50%25", "50%", "a::b", "a b", "é", "日本", "a;b", "[1]", "a\\b", "a*b", "~x"]
NAMES = st.text(
    st.characters(exclude_characters="/", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12
).filter(lambda name: name not in (".", "..") and name == name.strip())
FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["disk", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else str(request.getfixturevalue("s3"))


@FEW
@given(name=NAMES, file=NAMES)
@example("g#1", "x?y")
@example("50%25", "a::b")
@example("[1]*", "[1]?*")
def test_a_folder_and_a_file_of_any_name(base: str, name: str, file: str) -> None:
    root = Folder(f"{base}/{uuid.uuid4().hex}")
    folder = root.child(name)
    folder.write(file, b"content")
    assert folder.read(file) == read_uri(f"{folder.uri}/{file}") == b"content"
    assert folder.exists(file)
    assert folder.list_files() == [file]
    assert folder.file_sizes([file]) == {file: 7}
    assert root.list_files("**") == [f"{name}/{file}"]
    assert folder.modified_time(file) > 0
    with pytest.raises(FileExistsError):
        folder.create(file, b"")
    folder.remove(file)
    assert root.list_files("**") == []


@pytest.mark.parametrize("name", SPECIAL)
def test_every_library_opens_the_file_of_that_name(s3: str, tmp_path: Path, name: str) -> None:
    for root in (s3, str(tmp_path)):
        folder = Folder(f"{root}/{name}")
        folder.write("x.parquet", b"content")
        uri = folder.quoted_uri_of("x.parquet")
        filesystem, path = pa.fs.FileSystem.from_uri(uri)
        assert filesystem.open_input_file(path).read() == b"content"
        [path], filesystem = _resolve_paths_and_filesystem([uri])
        assert filesystem.open_input_file(path).read() == b"content"


def test_galleries_with_special_names_are_separate_tables(s3: str, tmp_path: Path) -> None:
    for root in (f"{s3}/{uuid.uuid4().hex}", str(tmp_path)):
        for number, name in enumerate(SPECIAL):
            folder = Folder(f"{root}/{name}")
            lance.write_dataset(pa.table({"number": [number]}), table_uri(folder), mode="create")
        for number, name in enumerate(SPECIAL):
            folder = Folder(f"{root}/{name}")
            assert open_table(folder).to_table().to_pydict() == {"number": [number]}
            assert folder.list_files(f"{TABLE}/data/*")


@pytest.mark.parametrize("name", ["a//b", "a/../b", "a/./b"])
def test_a_path_that_no_url_expresses_is_refused_with_its_part(name: str) -> None:
    with pytest.raises(InputError, match="a part of the path is '"):
        quoted_uri(f"s3://bucket/{name}")
    assert quoted_uri(f"/disk/{name}") == f"/disk/{name}"


def test_removing_a_name_with_pattern_characters_leaves_the_others(base: str) -> None:
    root = Folder(f"{base}/{uuid.uuid4().hex}")
    for name in ("a*", "ab", "a[b]", "a?"):
        root.child(name).write("x", b"")
    for name, remaining in (("a*", ["a?", "a[b]", "ab"]), ("a?", ["a[b]", "ab"]), ("a[b]", ["ab"])):
        root.child(name).remove()
        assert root.list_files("*/x") == [f"{other}/x" for other in remaining]


@pytest.mark.parametrize("uri", ["s3://", "s3:///", "memory://"])
def test_a_scheme_without_a_name_is_refused(uri: str) -> None:
    """It would be the local folder `s3:`."""
    with pytest.raises(InputError, match=f"^{uri}: names no bucket"):
        Folder(uri)
    assert Folder("file:///").path_of("x") == Folder("/").path_of("x") == "/x"


def test_the_version_of_an_s3_object_is_refused() -> None:
    with pytest.raises(InputError, match=r"s3://b/x\?versionId=3: .*\?versionId="):
        resolve_uri("s3://b/x?versionId=3")


@pytest.mark.parametrize(
    ("uri", "fs_class", "path"),
    [
        ("s3://b/a::b#c", s3fs.S3FileSystem, "b/a::b#c"),
        ("S3://B/S3://c", s3fs.S3FileSystem, "B/S3://c"),
        ("FILE:///A#b", None, "/A#b"),
        ("/a::b", None, "/a::b"),
        ("file:///a#b", None, "/a#b"),
        ("/x://y", None, "/x://y"),
        ("data:x", None, f"{Path.cwd()}/data:x"),
    ],
)
def test_the_part_after_the_scheme_is_the_name(uri: str, fs_class: type | None, path: str) -> None:
    fs, resolved = resolve_uri(uri)
    assert resolved == path
    if fs_class is not None:
        assert isinstance(fs, fs_class)

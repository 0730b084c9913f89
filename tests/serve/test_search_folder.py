"""The checks of `python -m serve.search_folder`, which come before anything is indexed or started."""

import socket
from pathlib import Path

import pytest

from serve.search_folder import default_gallery, parser, run


@pytest.mark.parametrize(
    ("photos", "options", "message"),
    [
        ("missing", [], "PHOTOS: {folder}/missing is not a folder on this machine"),
        ("file", [], "PHOTOS: {folder}/file is not a folder"),
        (".", ["--gallery", "{folder}/gallery"], "--gallery: {folder}/gallery is inside PHOTOS"),
        (".", ["--port", "0"], "port: '0' is not a number from 1 to 65535"),
        (".", ["--port", "{port}"], "port: cannot listen on 127.0.0.1:{port}"),
        (".", ["--checkpoint", "{folder}/missing"], "{folder}/missing: no checkpoint"),
    ],
)
def test_bad_input_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], photos: str, options: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        values = {"folder": tmp_path, "port": taken.getsockname()[1]}
        arguments = ["--checkpoint", "c", *(option.format(**values) for option in options)]
        assert run(parser().parse_args([str(tmp_path / photos), *arguments])) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"search_folder: {message.format(**values)}")


def test_folders_of_one_name_have_galleries_of_their_own() -> None:
    one, other = default_gallery(Path("/a/Pictures")), default_gallery(Path("/b/Pictures"))
    assert one.endswith("/Pictures")
    assert one != other

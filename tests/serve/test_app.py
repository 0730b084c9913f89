"""What `serve run serve.app:build …` refuses: before anything starts, in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from serve.app import Refusal, build, wire
from stbir.errors import InputError
from stbir.model import checkpoint

ROOT = Path(__file__).resolve().parents[2]
OTHER = "sha256:another"


def test_a_gallery_of_another_checkpoint_is_refused_with_both_digests(
    checkpoint_uri, write_gallery, tmp_path
):
    gallery = write_gallery(tmp_path / "gallery", OTHER)
    with pytest.raises(InputError) as error:
        wire({"checkpoint": checkpoint_uri, "gallery": gallery})
    assert OTHER in str(error.value)
    assert checkpoint.read_digest(checkpoint_uri) in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"checkpoint": "nowhere"}, "nowhere: no checkpoint here"),
        ({"checkpoint": ""}, "checkpoint: missing"),
        ({"gallery": None}, "gallery: missing"),
        ({"recipe": "smoke"}, "recipe: no such argument"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml"),
        ({"gallery": "the checkpoint"}, "holds a checkpoint, not gallery"),
    ],
)
def test_bad_arguments_end_the_command(checkpoint_uri, gallery_uri, change, says):
    args = {"checkpoint": checkpoint_uri, "gallery": gallery_uri, **change}
    args = {
        name: checkpoint_uri if value == "the checkpoint" else value
        for name, value in args.items()
        if value is not None
    }
    with pytest.raises(Refusal) as refusal:
        build(args)
    assert refusal.value.exit_code == 2
    assert says in refusal.value.message
    assert "\n" not in refusal.value.message


def test_serve_run_exits_with_2_and_one_line():
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("serve")),
            "run",
            "serve.app:build",
            "checkpoint=nowhere",
            "gallery=nowhere",
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "nowhere: no checkpoint here" in last


def test_a_missing_gallery_is_no_reason_not_to_start(checkpoint_uri, tmp_path, caplog):
    wire({"checkpoint": checkpoint_uri, "gallery": str(tmp_path / "later")})
    assert "no gallery is published yet" in caplog.text


def test_replicas_get_the_checkpoint_that_was_there_at_the_start(checkpoint_uri):
    """A training run that publishes its next epoch must not change what later replicas open."""
    uri, digest = checkpoint.pinned(checkpoint_uri)
    assert uri == f"{checkpoint_uri}/epoch-0"
    assert checkpoint.read_digest(uri) == digest == checkpoint.read_digest(checkpoint_uri)

"""`serve run serve.app:build …` refuses invalid arguments with one line, before anything starts."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.serve._private.build_app import build_app

from serve.app import StartupError, build
from serve.galleries import release_config
from serve.rollout.release import resolve
from serve.wiring import build_application
from stbir.errors import InputError
from stbir.model import checkpoint

ROOT = Path(__file__).resolve().parents[2]
OTHER_DIGEST = "sha256:another"


def test_gallery_of_another_checkpoint_is_refused_with_both_digests(checkpoint_uri, write_gallery, tmp_path):
    gallery = write_gallery(tmp_path / "gallery", OTHER_DIGEST)
    with pytest.raises(InputError) as error:
        build_application({"checkpoint": checkpoint_uri, "gallery": gallery})
    assert OTHER_DIGEST in str(error.value)
    assert checkpoint.read_digest(checkpoint_uri) in str(error.value)


def with_galleries(folder, **galleries):
    """The argument `config`: a file of settings with these URIs by name."""
    (folder / "settings.yaml").write_text(
        yaml.safe_dump({"galleries": {name: {"gallery": uri} for name, uri in galleries.items()}})
    )
    return str(folder / "settings.yaml")


def test_each_gallery_has_a_deployment_and_a_release(checkpoint_uri, gallery_uri, shoes_uri, tmp_path):
    config = with_galleries(tmp_path, shoes=shoes_uri)
    args = {"checkpoint": checkpoint_uri, "gallery": gallery_uri, "config": config}
    *others, ingress = build_app(build_application(args), name="stbir").deployments
    names = ["SketchReplica", "TextReplica", "FusionReplica", "FusionReplica_shoes"]
    assert [each.name for each in others] == names
    handles = ingress.init_args[2]
    assert {name: handle.deployment_name for name, handle in handles.items()} == {
        "default": "FusionReplica",
        "shoes": "FusionReplica_shoes",
    }
    for each in (ingress, *others):
        for name, uri in (("default", gallery_uri), ("shoes", shoes_uri)):
            release = resolve(release_config(each.user_config, name))
            assert release == resolve({"checkpoint": checkpoint_uri, "gallery": uri})


def test_named_gallery_of_another_checkpoint_is_refused(checkpoint_uri, gallery_uri, write_gallery, tmp_path):
    config = with_galleries(tmp_path, shoes=write_gallery(tmp_path / "shoes", OTHER_DIGEST))
    with pytest.raises(InputError, match=OTHER_DIGEST):
        build_application({"checkpoint": checkpoint_uri, "gallery": gallery_uri, "config": config})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "nowhere"}, "nowhere: no checkpoint here"),
        ({"checkpoint": ""}, "checkpoint: missing"),
        ({"gallery": None}, "gallery: missing"),
        ({"recipe": "smoke"}, "recipe: no such argument"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml"),
        ({"port": "eighty"}, "port: 'eighty' is not a number from 1 to 65535"),
        ({"port": "70000"}, "port: '70000' is not a number"),
        ({"port": "8117"}, "host and port: only for `serve run`; set http_options"),
        ({"gallery": "the checkpoint"}, "holds a checkpoint, not gallery"),
    ],
)
def test_invalid_arguments_end_the_command(checkpoint_uri, gallery_uri, change, message):
    args = {"checkpoint": checkpoint_uri, "gallery": gallery_uri, **change}
    args = {
        name: checkpoint_uri if value == "the checkpoint" else value
        for name, value in args.items()
        if value is not None
    }
    with pytest.raises(StartupError) as error:
        build(args)
    assert error.value.exit_code == 2
    assert message in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("option", "value"),
    [("autoscaling_config", {"min_replicas": 5, "max_replicas": 2}), ("max_ongoing", 3), ("num_replicas", 2)],
)
def test_options_that_serve_refuses_end_the_command(checkpoint_uri, gallery_uri, tmp_path, option, value):
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({"text": {"options": {option: value}}}))
    args = {"checkpoint": checkpoint_uri, "gallery": gallery_uri, "config": str(config)}
    with pytest.raises(StartupError, match="config: options of TextReplica: ") as error:
        build(args)
    assert "\n" not in error.value.message


@pytest.mark.slow(reason="a process of Ray Serve")
def test_serve_run_exits_with_2_and_one_line():
    serve = str(Path(sys.executable).with_name("serve"))
    done = subprocess.run(
        [serve, "run", "serve.app:build", "checkpoint=nowhere", "gallery=nowhere"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last_line = done.stderr.splitlines()[-1]
    assert last_line.startswith("Error: ")
    assert "nowhere: no checkpoint here" in last_line


@pytest.mark.slow(reason="a process of Ray Serve")
def test_a_taken_port_ends_serve_run_with_one_line():
    """Before the checkpoint is read and Ray starts."""
    serve = str(Path(sys.executable).with_name("serve"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [serve, "run", "serve.app:build", "checkpoint=nowhere", "gallery=nowhere", f"port={port}"]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, "RAY_TMPDIR": "/nonexistent"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith(
        f"Error: port: cannot listen on 127.0.0.1:{port} (Address already in use); give port=N"
    )


def test_missing_gallery_is_a_warning(checkpoint_uri, tmp_path, caplog):
    build_application({"checkpoint": checkpoint_uri, "gallery": str(tmp_path / "unpublished")})
    assert "no gallery is published yet" in caplog.text


def test_replicas_get_a_pinned_checkpoint(checkpoint_uri):
    """A training run that saves its next epoch does not change the checkpoint of later replicas."""
    uri, digest = checkpoint.resolve_pinned(checkpoint_uri)
    assert uri == f"{checkpoint_uri}/epoch-0"
    assert checkpoint.read_digest(uri) == digest == checkpoint.read_digest(checkpoint_uri)

"""The preflight finds what is missing, says the remedy, and every job runs its own part of it."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import NodeID

from ray_jobs import preflight
from ray_jobs.cli import run
from ray_jobs.cluster import requirements
from ray_jobs.cluster.auth_check import token_asked
from ray_jobs.cluster.checks import DoubtError, demand, look, table
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training.job import step_bytes
from serve.http.auth import VARIABLE
from stbir.errors import InputError
from stbir.model import checkpoint
from stbir.model.builder import build
from tests.conftest import free_port
from tests.data.pictures import png, tree


def _missing() -> str:
    raise InputError("no shards there; make them with prepare_shards.py")


def _doubtful() -> str:
    raise DoubtError("3 GiB free; leave 10")


MADE_UP: list[tuple[str, Callable[[], str]]] = [
    ("CPUs", lambda: "8"),
    ("disk", _doubtful),
    ("shards", _missing),
]


def test_a_finding_is_ok_doubtful_or_missing_and_has_its_remedy() -> None:
    found = look(MADE_UP)
    assert [finding.level for finding in found] == ["ok", "doubt", "missing"]
    assert (found[2].says, found[2].remedy) == ("no shards there", "make them with prepare_shards.py")
    assert table(found).splitlines() == [
        "ok       CPUs    8",
        "doubt    disk    3 GiB free",
        "                 → leave 10",
        "missing  shards  no shards there",
        "                 → make them with prepare_shards.py",
    ]


def test_a_job_goes_on_with_doubts_and_not_without_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    demand([])
    demand(MADE_UP[:2])
    assert "disk: 3 GiB free; leave 10" in capsys.readouterr().err
    with pytest.raises(InputError, match="no shards there; make them"):
        demand(MADE_UP)


def _facts(**changed: Any) -> dict[str, Any]:
    return {
        "node": "10.0.0.1",
        "versions": {"torch": "2.13.0"},
        "time": 100.0,
        "disk": 50 * requirements.GIB,
        **changed,
    }


def test_nodes_that_differ_are_named() -> None:
    other = _facts(node="10.0.0.2", versions={"torch": "2.11.0"})
    assert requirements._versions(_facts(), [_facts()]) == "torch 2.13.0"
    with pytest.raises(InputError, match=r"torch: node 10\.0\.0\.2 has 2\.11\.0, this one 2\.13\.0; set all"):
        requirements._versions(_facts(), [_facts(), other])
    with pytest.raises(InputError, match="clocks differ by 900 s"):
        requirements._clocks([_facts(), _facts(time=1000.0)])
    with pytest.raises(DoubtError, match=r"of node 10\.0\.0\.1 has 2 GiB free"):
        requirements._disk([_facts(node="10.0.0.3"), _facts(disk=2 * requirements.GIB)])


def test_a_cluster_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    token = tmp_path / "token"
    token.write_text("secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    token.chmod(0o600)
    assert token_asked(None).startswith("asked for, as RAY_AUTH_MODE says here; whether")
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "cannot be tried from here" in token_asked(nobody)
    token.chmod(0o644)
    with pytest.raises(DoubtError, match="chmod 600"):
        token_asked(None)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(DoubtError, match="whoever reaches this cluster runs code on it"):
        token_asked(None)
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(InputError, match="asks nobody for a token; make a token"):
        token_asked(None)


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A place on this machine that answers everything with that."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_cluster_that_answers_without_the_token_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with answering(401) as closed:
        assert token_asked(closed) == "asked for"
    with answering(500) as broken:
        assert "cannot be tried from here" in token_asked(broken)
    with answering(200) as careless, pytest.raises(InputError, match=r"without the token .*; make a token"):
        token_asked(careless)


def test_gpus_that_others_hold_are_not_waited_for(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "LOOK_S", 0.5)
    say = ray.remote(num_cpus=0)(lambda: "a device")
    free, held = say.remote(), say.options(resources={"held": 1}).remote()
    assert ray.get(free) == "a device"
    with pytest.raises(DoubtError, match="a device: 1 of 2 are in use now; the job will wait"):
        requirements._seen([free, held])
    assert requirements._seen([free]) == "a device"


def test_the_remedy_of_a_task_is_a_line_too(ray_cluster: str) -> None:
    def missing() -> str:  # within: it travels as it is, and the worker imports no test
        raise InputError("no shards there; make them with prepare_shards.py")

    task = ray.remote(num_cpus=0)(missing)
    [finding] = look([("GPUs", lambda: ray.get(task.remote()))])
    assert (finding.says, finding.remedy) == ("no shards there", "make them with prepare_shards.py")


def test_the_bytes_of_a_step_are_those_of_its_decoded_rows() -> None:
    smoke = recipe("smoke")
    a_row = (3 + 1) * 32 * 32  # a photo in colour and a sketch in grey, a byte a value
    assert step_bytes(smoke) == 16 * a_row
    stored = override(recipe("reference"), [])
    assert step_bytes(stored) == 16 * (1 + 6) * (3 + 1) * 224 * 224


def test_weights_are_looked_for_before_training(tmp_path: Path) -> None:
    with pytest.raises(DoubtError, match="'openai' is loaded from the hub"):
        requirements._weights("openai")
    with pytest.raises(InputError, match=r"no file none/w\.pt; give a tag"):
        requirements._weights("none/w.pt")
    (tmp_path / "w.pt").write_bytes(b"weights")
    assert requirements._weights(str(tmp_path / "w.pt"))


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["preflight.py", *map(str, arguments)])
    try:
        run(preflight.main, preflight.parser())
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_one_table_and_one_exit_code(
    ray_cluster: str,
    shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)  # connected already: what is asked of a cluster is asked
    wanted = ["--for", "train", "--recipe", "smoke", "--shards", shards, "--out", tmp_path / "out"]
    assert _run(monkeypatch, *wanted) == 0
    out = capsys.readouterr().out
    names = {finding["check"] for finding in json.loads(out.splitlines()[-1])["findings"]}
    assert {"shards", "CPUs", "GPUs", "object store", "token", "versions", "clock", "disk"} <= names
    assert "written, read, listed, deleted" in out
    assert not (tmp_path / "out").exists()

    assert _run(monkeypatch, *wanted, "--workers", "16", "--set", "batch_size=32", "--wait", "0") == 2
    said = capsys.readouterr()
    assert "missing  CPUs" in said.out
    assert "→ start more nodes, or give fewer workers" in said.out
    assert "1 of 9 are missing; do what stands beneath each" in said.err
    assert "waiting up to 0 s for 18 CPUs and 0 GPUs" in said.err  # as the job itself does
    assert _run(monkeypatch, "--for", "train", "--recipe", "smoke") == 2
    assert "--shards: missing; --for train needs recipe, shards, out" in capsys.readouterr().err


def test_a_node_that_goes_meanwhile_stops_nothing(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [here], gone = requirements._alive(), NodeID.from_random().hex()
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    monkeypatch.setattr(requirements, "_alive", lambda: [gone, here])
    found = {finding.check: finding for finding in look([*requirements.cluster()])}
    assert found["clock"].says.startswith("1 nodes")


def test_what_is_served_must_belong_together(
    ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke, uri = replace(recipe("smoke")), str(tmp_path / "checkpoint")
    checkpoint.save(uri, "step-0", build(smoke.model), smoke, made_from="", counts={})
    assert _run(monkeypatch, "--for", "serve", "--checkpoint", uri, "--gallery", tmp_path / "none") == 2
    said = capsys.readouterr().out
    assert "ok       checkpoint  whole, sha256:" in said
    assert "missing  gallery" in said
    assert "doubt    keys" in said

    photos, gallery = tree(tmp_path / "photos", {"a/1.png": png()}), ["--gallery", tmp_path / "new"]
    wanted = ["--for", "embed", "--checkpoint", uri, *gallery]
    assert _run(monkeypatch, *wanted, "--photos", f"folder:{photos}") == 0
    said = capsys.readouterr().out
    assert "ok       photos" in said
    assert "ok       CPUs" in said
    assert "ok       GPUs" in said
    assert _run(monkeypatch, *wanted, "--photos", f"folder:{photos}", "--gpu", "yes") == 2
    assert "missing  GPUs" in capsys.readouterr().out
    assert _run(monkeypatch, *wanted) == 2
    assert "--shards or photos: missing; --for embed needs checkpoint" in capsys.readouterr().err
    assert _run(monkeypatch, *wanted, "--photos", "folder:x", "--shards", "x") == 2
    assert "--shards or photos: give one of them" in capsys.readouterr().err


def test_whom_an_endpoint_will_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert requirements.KEYS == VARIABLE
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(DoubtError, match="answers this machine only; name a file of keys"):
        requirements._keys()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "keys"))
    with pytest.raises(InputError, match=r"No such file.*keys.*; make it with python -m serve\.keys"):
        requirements._keys()
    (tmp_path / "keys").write_text("me 0\n")
    assert requirements._keys() == f"1 lines in {tmp_path}/keys"

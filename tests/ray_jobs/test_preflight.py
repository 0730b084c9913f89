"""Preflight: checks, their results and remedies, and the table of the command."""

import json
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import timm
import torch
from ray import NodeID

from ray_jobs import preflight
from ray_jobs.cli import run
from ray_jobs.cluster import requirements, serving
from ray_jobs.cluster.auth_check import check_token
from ray_jobs.cluster.checks import CheckWarningError, enforce, run_checks, table
from ray_jobs.cluster.serving import Replicas, read_replicas, serving_checks
from ray_jobs.recipes import recipe
from ray_jobs.training.job import step_bytes
from serve.http.auth import API_KEYS_FILE_ENV
from serve.settings import read_settings
from stbir.data.photo_index import build_photo_index
from stbir.data.shards import open_shards
from stbir.errors import InputError
from tests.conftest import ROOT, free_port
from tests.data.image_files import png, write_files
from tests.http_server import Handler, Server
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint


def _missing() -> str:
    raise InputError("no shards there; make them with prepare_shards.py")


def _warning() -> str:
    raise CheckWarningError("3 GiB free; leave 10")


CHECKS: list[tuple[str, Callable[[], str]]] = [
    ("CPUs", lambda: "8"),
    ("disk", _warning),
    ("shards", _missing),
]


def test_check_results_have_level_and_remedy() -> None:
    results = run_checks(CHECKS)
    assert [result.level for result in results] == ["ok", "warning", "missing"]
    assert (results[2].message, results[2].remedy) == ("no shards there", "make them with prepare_shards.py")
    assert results[2].as_dict() == {
        "check": "shards",
        "level": "missing",
        "says": "no shards there",
        "remedy": "make them with prepare_shards.py",
    }
    assert table(results).splitlines() == [
        "ok       CPUs    8",
        "warning  disk    3 GiB free",
        "                 → leave 10",
        "missing  shards  no shards there",
        "                 → make them with prepare_shards.py",
    ]


def test_error_without_a_remedy_keeps_its_message() -> None:
    def broken() -> str:
        raise InputError("no shards there")

    [result] = run_checks([("shards", broken)])
    assert (result.message, result.remedy, result.line) == ("no shards there", "", "no shards there")


def test_enforce_prints_warnings_and_raises_for_missing(capsys: pytest.CaptureFixture[str]) -> None:
    enforce([])
    enforce(CHECKS[:2])
    assert "disk: 3 GiB free; leave 10" in capsys.readouterr().err
    with pytest.raises(InputError, match="no shards there; make them"):
        enforce(CHECKS)


def _node_info(**changed: Any) -> dict[str, Any]:
    return {
        "node": "10.0.0.1",
        "versions": {"torch": "2.13.0"},
        "time": 100.0,
        "disk": 50 * requirements.GIB,
        **changed,
    }


def test_differing_nodes_are_named() -> None:
    other = _node_info(node="10.0.0.2", versions={"torch": "2.11.0"})
    assert requirements._versions(_node_info(), [_node_info()]) == "torch 2.13.0"
    with pytest.raises(
        InputError, match=r"torch: node 10\.0\.0\.2 has 2\.11\.0, this one 2\.13\.0; install all"
    ):
        requirements._versions(_node_info(), [_node_info(), other])
    with pytest.raises(InputError, match="clocks differ by 900 s"):
        requirements._clocks([_node_info(), _node_info(time=1000.0)])
    with pytest.raises(CheckWarningError, match=r"of node 10\.0\.0\.1 has 2 GiB free"):
        requirements._disk([_node_info(node="10.0.0.3"), _node_info(disk=2 * requirements.GIB)])


def test_cluster_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    token = tmp_path / "token"
    token.write_text("secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    token.chmod(0o600)
    unverified = "required by RAY_AUTH_MODE here; not verified, the dashboard cannot be reached"
    assert check_token(None) == unverified
    assert check_token(f"http://127.0.0.1:{free_port()}") == unverified
    token.chmod(0o644)
    with pytest.raises(CheckWarningError, match="chmod 600"):
        check_token(None)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(CheckWarningError, match="anyone who reaches this cluster can run code on it"):
        check_token(None)
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(InputError, match="requires no token; make a token"):
        check_token(None)


def http_server(status: int) -> AbstractContextManager[str]:
    """The URL of a local HTTP server that answers every request with that status."""
    return Server(type("Fixed", (Handler,), {"do_GET": lambda self: self.respond(status)})).running()


def test_dashboard_that_accepts_calls_without_token_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with http_server(401) as closed:
        assert check_token(closed) == "required"
    with http_server(500) as broken:
        assert "not verified" in check_token(broken)
    with (
        http_server(200) as unprotected,
        pytest.raises(InputError, match=r"without the token .*; make a token"),
    ):
        check_token(unprotected)


def test_gpus_in_use_are_a_warning(ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "GPU_CHECK_TIMEOUT_S", 0.5)
    task = ray.remote(num_cpus=0)(lambda: "a device")
    free, pending = task.remote(), task.options(resources={"unavailable": 1}).remote()
    assert ray.get(free) == "a device"
    with pytest.raises(CheckWarningError, match="a device: 1 of 2 GPUs are in use; the job waits"):
        requirements._gpu_names([free, pending])
    assert requirements._gpu_names([free]) == "a device"


def test_error_of_a_task_keeps_message_and_remedy(ray_cluster: str) -> None:
    def missing() -> str:  # local, so that Ray pickles it by value
        raise InputError("no shards there; make them with prepare_shards.py")

    task = ray.remote(num_cpus=0)(missing)
    [result] = run_checks([("GPUs", lambda: ray.get(task.remote()))])
    assert (result.message, result.remedy) == ("no shards there", "make them with prepare_shards.py")


def test_step_bytes_are_the_size_of_the_decoded_rows() -> None:
    smoke = recipe("smoke")
    row_bytes = (3 + 1) * 32 * 32  # RGB photo and grey sketch, one byte per value
    assert step_bytes(smoke) == 16 * row_bytes
    reference = recipe("reference")
    assert step_bytes(reference) == 16 * ((1 + 6) * 3 + 1) * 224 * 224


def test_photos_without_negatives_are_a_warning(local_shards: str) -> None:
    photos = build_photo_index(open_shards(local_shards), ["train"], [])
    assert requirements.samples(photos, recipe("smoke")) == f"{len(photos)} photos"
    with pytest.raises(CheckWarningError, match=r"100% of the samples have no other photo.*; add photos"):
        requirements.samples(photos, replace(recipe("smoke"), batch_size=1))


def _weights(source: str) -> str:
    model = recipe("demo").model
    [(name, check)] = requirements.weights(replace(model, photo=replace(model.photo, weights=source)))
    assert name == "photo weights"
    return check()


def test_weights_are_loaded_before_training(tmp_path: Path) -> None:
    with pytest.raises(CheckWarningError, match="'openai' is downloaded from the hub"):
        _weights("openai")
    with pytest.raises(InputError, match=r"no file none/w\.pt; give a tag"):
        _weights("none/w.pt")
    path = tmp_path / "w.pt"
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"w\.pt"):
        _weights(str(path))
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    assert _weights(str(path)) == f"{path}: loaded"


@pytest.mark.parametrize("profile", [None, "serve/profiles/cluster.yaml", "serve/profiles/gpu.yaml"])
def test_replicas_of_a_profile_are_those_of_the_endpoint(profile: str | None) -> None:
    uri = profile and str(ROOT / profile)
    settings = read_settings(uri)
    for each in read_replicas(uri):
        options = getattr(settings, each.deployment).options
        actor, scaling = options["ray_actor_options"], options["autoscaling_config"]
        assert (each.cpus, each.gpus) == (actor["num_cpus"], actor.get("num_gpus", 0))
        assert (each.minimum, each.maximum) == (scaling["min_replicas"], scaling["max_replicas"])


def test_one_process_has_replicas_of_the_ingress_only() -> None:
    cpu = read_replicas(str(ROOT / "serve/profiles/cpu.yaml"))
    cpus_of_separate_deployments = sum(each.cpus for each in read_replicas(None))
    assert cpu == [Replicas("ingress", pytest.approx(cpus_of_separate_deployments), 0, 1, 1)]


def test_a_fixed_number_of_replicas_and_null_options_are_those_of_serve(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "sketch: {options: {autoscaling_config: null, num_replicas: 3, ray_actor_options: null}}\n"
        "text: {options: {autoscaling_config: null}}"
    )
    _, sketch, text, _ = read_replicas(str(path))
    assert sketch == Replicas("sketch", 1, 0, 3, 3)
    assert (text.minimum, text.maximum) == (1, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sketch: {options: null}", "sketch.options: "),
        ("sketch: null", "sketch: "),
        ("", "the file: "),
        ("[1]", "the file: "),
        (
            "text: {options: {ray_actor_options: {num_cpus: many}}}",
            "text.options.ray_actor_options.num_cpus: ",
        ),
        ("text: {options: {autoscaling_config: 3}}", "text.options.autoscaling_config: "),
    ],
)
def test_wrong_settings_of_replicas_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"c\.yaml: {re.escape(message)}.*; see serve/config\.yaml$"):
        read_replicas(str(path))


def test_cpus_of_all_replicas_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = 22
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cpus)})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": cpus / 2}, "Labels": {}}])
    replicas = read_replicas(str(ROOT / "serve/profiles/cluster.yaml"))
    [(_, check), *_] = serving_checks(replicas)
    assert check() == "22, of which the replicas need 22 to 216"
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 21.0})
    added = r"22 CPUs \(2 x 1 ingress \+ 2 x 4 sketch \+ 2 x 2 text \+ 2 x 4 fusion\), the cluster has 21; "
    with pytest.raises(InputError, match=added):
        check()
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 60.0})
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 3}, "Labels": {}}] * 20)
    with pytest.raises(InputError, match="a replica of sketch needs 4 CPUs on one node, the largest has 3; "):
        check()


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["preflight.py", *map(str, arguments)])
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # the connection of all tests
    try:
        run(preflight.main, preflight.parser())
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_command_prints_a_table_and_sets_the_exit_code(
    ray_cluster: str,
    shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)  # the checks of a cluster, over the existing connection
    options = ["--job", "train", "--recipe", "smoke", "--shards", shards, "--out", tmp_path / "out"]
    assert _run(monkeypatch, *options) == 0
    out = capsys.readouterr().out
    names = {result["check"] for result in json.loads(out.splitlines()[-1])["findings"]}
    assert {
        "shards",
        "samples",
        "CPUs",
        "GPUs",
        "object store",
        "token",
        "versions",
        "clock",
        "disk",
    } <= names
    assert "written, read, listed, deleted" in out
    assert not (tmp_path / "out").exists()

    more = ["--workers", "16", "--set", "batch_size=32", "--resource-timeout", "0"]
    assert _run(monkeypatch, *options, *more) == 2
    out, err = capsys.readouterr()
    assert "missing  CPUs" in out
    assert "→ start more nodes, or request fewer" in out
    assert "1 of 10 checks failed; see the remedy (→) of each" in err
    assert "waiting up to 0 s for 18 CPUs and 0 GPUs" in err
    assert _run(monkeypatch, "--job", "train", "--recipe", "smoke") == 2
    assert "--shards: missing; --job train needs --recipe, --shards, --out" in capsys.readouterr().err


def test_node_that_leaves_during_the_checks_is_skipped(
    ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [present], lost = requirements._alive_node_ids(), NodeID.from_random().hex()
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster)
    monkeypatch.setattr(requirements, "_alive_node_ids", lambda: [lost, present])
    results = {result.check: result for result in run_checks([*requirements.cluster()])}
    assert results["clock"].message.startswith("1 nodes")


def test_checks_of_serving_and_embedding(
    ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = save_smoke_checkpoint(str(tmp_path / "checkpoint"))
    assert _run(monkeypatch, "--job", "serve", "--checkpoint", uri, "--gallery", tmp_path / "none") == 2
    out = capsys.readouterr().out
    assert "ok       checkpoint  complete, sha256:" in out
    assert "missing  gallery" in out
    assert "warning  keys" in out

    photos, gallery = write_files(tmp_path / "photos", {"a/1.png": png()}), ["--gallery", tmp_path / "new"]
    options = ["--job", "embed", "--checkpoint", uri, *gallery]
    assert _run(monkeypatch, *options, "--photos", f"folder:{photos}") == 0
    out = capsys.readouterr().out
    assert "ok       photos" in out
    assert "ok       CPUs" in out
    assert "ok       GPUs" in out
    assert _run(monkeypatch, *options, "--photos", f"folder:{photos}", "--gpu", "yes") == 2
    assert "missing  GPUs" in capsys.readouterr().out
    assert _run(monkeypatch, *options) == 2
    assert "--shards or --photos: missing; --job embed needs --checkpoint" in capsys.readouterr().err
    assert _run(monkeypatch, *options, "--photos", "folder:x", "--shards", "x") == 2
    assert "--shards or --photos: both are given; --job embed needs" in capsys.readouterr().err


def test_api_keys_of_the_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert serving.API_KEYS_FILE_ENV == API_KEYS_FILE_ENV
    monkeypatch.delenv(API_KEYS_FILE_ENV, raising=False)
    with pytest.raises(CheckWarningError, match="from this machine only; set it to a file of API keys"):
        serving._api_keys()
    monkeypatch.setenv(API_KEYS_FILE_ENV, str(tmp_path / "keys"))
    with pytest.raises(
        InputError, match=r"No such file.*keys.*; make it with python -m serve\.http\.api_keys"
    ):
        serving._api_keys()
    (tmp_path / "keys").write_text("me 0\n")
    assert serving._api_keys() == f"1 lines in {tmp_path}/keys"

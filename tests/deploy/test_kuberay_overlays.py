"""Overlays of the KubeRay manifests, rendered by kustomize (a part of kubectl)."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import FILES, FOLDER, NAMES, Object, cluster, groups, objects, ray_object
from tests.deploy.test_kuberay_schemas import check_schemas

OVERLAYS = FOLDER.parent / "overlays"
pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders the overlays")


def render(overlay: str, folder: Path) -> list[Path]:
    """Render an overlay to one file for each label `app`, named as in the base."""
    command = ["kubectl", "kustomize", str(OVERLAYS / overlay)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    by_file: dict[str, list[Object]] = {}
    for each in yaml.safe_load_all(text):
        by_file.setdefault(NAMES[each["metadata"]["labels"]["app"]], []).append(each)
    for name, content in by_file.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(content))
    return sorted(folder.glob("*.yaml"))


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_overlay_has_all_objects_in_its_namespace_and_matches_the_schemas(
    overlay: str, tmp_path: Path
) -> None:
    for base, file in zip(FILES, render(overlay, tmp_path), strict=True):
        check_schemas(file)
        assert {each["metadata"]["namespace"] for each in objects(file)} == {f"stbir-{overlay}"}
        assert sorted(each["kind"] for each in objects(file)) == sorted(
            each["kind"] for each in objects(base)
        )


def test_development_has_one_worker_of_each_kind_for_a_job(tmp_path: Path) -> None:
    embed, serve, train = render("dev", tmp_path)
    for file in (embed, train):
        assert [group["maxReplicas"] for group in cluster(file)["workerGroupSpecs"]] == [1, 1]
    for file in (embed, serve, train):
        assert cluster(file)["autoscalerOptions"]["idleTimeoutSeconds"] == 60
    assert ray_object(serve)["spec"]["upgradeStrategy"] == {"type": "None"}


def test_production_has_spot_workers_for_jobs_only(tmp_path: Path) -> None:
    for file in render("prod", tmp_path):
        head, *workers = [group["template"]["spec"] for group in groups(file)]
        is_job = ray_object(file)["kind"] == "RayJob"
        assert "nodeAffinity" not in head.get("affinity", {})
        assert all(("nodeAffinity" in worker["affinity"]) is is_job for worker in workers)
        assert all(("topologySpreadConstraints" in worker) is not is_job for worker in workers)
        if is_job:
            tolerated = [{each["key"] for each in worker["tolerations"]} for worker in workers]
            assert tolerated == [
                {"cloud.google.com/gke-spot"},
                {"cloud.google.com/gke-spot", "nvidia.com/gpu"},
            ]

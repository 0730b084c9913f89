"""The KubeRay manifests as objects: pods, groups, policies."""

from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "kuberay" / "base"
NAMES = {"stbir-train": "train", "stbir-embed": "embed", "stbir": "serve"}  # label `app` → file
FILES = sorted(FOLDER / f"{name}.yaml" for name in NAMES.values())
Object = dict[str, Any]


def objects(file: Path) -> list[Object]:
    return [each for each in yaml.safe_load_all(file.read_text()) if each]


def ray_object(file: Path) -> Object:
    [ray] = [each for each in objects(file) if each["apiVersion"] == "ray.io/v1"]
    return ray


def cluster(file: Path) -> Object:
    spec = ray_object(file)["spec"]
    config: Object = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    return config


def groups(file: Path) -> list[Object]:
    return [cluster(file)["headGroupSpec"], *cluster(file)["workerGroupSpecs"]]


def containers(file: Path) -> list[Object]:
    pods = [group["template"]["spec"] for group in groups(file)]
    pods += [each["spec"]["template"]["spec"] for each in objects(file) if each["kind"] == "StatefulSet"]
    return [container for pod in pods for container in pod["containers"]]


def templates(file: Path) -> list[Object]:
    """All pod templates of a file, of Ray and of Redis."""
    sets = [each for each in objects(file) if each["kind"] == "StatefulSet"]
    return [*(group["template"] for group in groups(file)), *(each["spec"]["template"] for each in sets)]


def of_kind(file: Path, kind: str) -> list[Object]:
    return [each for each in objects(file) if each["kind"] == kind]


def selects(selector: Object, template: Object) -> bool:
    return selector["matchLabels"].items() <= template["metadata"]["labels"].items()

"""cluster.yaml, held against Ray's own schema and loader and against a server that speaks AWS."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.conftest import ROOT

FILE = ROOT / "cluster.yaml"
MARK = "<- fill in"
VALUES = {
    "FILL-IN-REGION": "us-east-1",
    "FILL-IN-PATH-OF-PRIVATE-KEY": "key.pem",
    "FILL-IN-KEY-NAME": "the-key",
    "FILL-IN-HEAD-PROFILE": "head-profile",
    "FILL-IN-WORKER-PROFILE": "worker-profile",
}
Config = dict[str, Any]


def filled_in(private_key: str = "key.pem") -> Config:
    """The file as its user loads it, with every marked line filled in."""
    text = FILE.read_text()
    for placeholder, value in {**VALUES, "FILL-IN-PATH-OF-PRIVATE-KEY": private_key}.items():
        text = text.replace(placeholder, value)
    config: Config = yaml.safe_load(text)
    return config


def test_the_lines_to_fill_in_are_the_marked_ones() -> None:
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if "FILL-IN" in line] == [line for line in lines if MARK in line]
    assert set(re.findall(r"FILL-IN-[A-Z-]+", "\n".join(lines))) == set(VALUES)


def test_rays_schema_and_loader_accept_it() -> None:
    validate_config(prepare_config(filled_in()))


def _unknown_field(config: Config) -> None:
    config["available_node_types"]["gpu"]["spot"] = True


def _wrong_type(config: Config) -> None:
    config["available_node_types"]["cpu"]["max_workers"] = "many"


def _no_such_head(config: Config) -> None:
    config["head_node_type"] = "boss"


@pytest.mark.parametrize("breaking", [_unknown_field, _wrong_type, _no_such_head])
def test_they_refuse_it_broken(breaking: Callable[[Config], None]) -> None:
    config = filled_in()
    breaking(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(prepare_config(config))


def test_aws_knows_its_machines_and_key(aws: None, tmp_path: Path) -> None:
    import boto3

    pair = boto3.client("ec2").create_key_pair(KeyName=VALUES["FILL-IN-KEY-NAME"])
    key = tmp_path / "key.pem"
    key.write_text(pair["KeyMaterial"])
    types = _bootstrap_config(filled_in(str(key)), no_config_cache=True)["available_node_types"]

    assert types["head"]["resources"] == {"CPU": 0}  # what ray up would start takes no work
    assert types["cpu"]["resources"]["CPU"] == 16  # looked up by the name of the instance
    assert types["gpu"]["resources"]["GPU"] == 1
    assert all(kind["node_config"]["SecurityGroupIds"] for kind in types.values())


def test_nothing_listens_without_a_token_nor_the_dashboard_outside() -> None:
    config = filled_in()
    starts = [c for k in ("head", "worker") for c in config[f"{k}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_it_holds_no_key_and_rights_come_by_role() -> None:
    config = filled_in()
    assert not re.search(r"AKIA|aws_secret|aws_access|BEGIN .*PRIVATE", FILE.read_text(), re.IGNORECASE)
    assert all(
        "IamInstanceProfile" in kind["node_config"] for kind in config["available_node_types"].values()
    )


def test_machines_cost_nothing_while_nobody_works() -> None:
    config = filled_in()
    workers = {name: kind for name, kind in config["available_node_types"].items() if name != "head"}
    assert all(kind["min_workers"] == 0 for kind in workers.values())
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert sum(kind["max_workers"] for kind in workers.values()) <= config["max_workers"]

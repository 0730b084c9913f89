"""compose.yaml: the schema of the Compose specification, and agreement with the files that it uses."""

import json
import re
from importlib.resources import files
from typing import Any

import jsonschema
import yaml

from serve.environment import DEFAULT_VARIABLES
from tests.conftest import ROOT

TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]


def config(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(COMPOSE["configs"][name]["content"])
    return content


def test_file_matches_the_schema_of_the_compose_specification() -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))


def test_endpoint_has_the_variables_of_serve_before_ray_starts() -> None:
    environment = SERVICES["endpoint"]["environment"]
    assert environment.items() >= DEFAULT_VARIABLES.items()
    command = SERVICES["endpoint"]["command"][-1]
    assert command.index("ray start") < command.index("serve run")


def test_image_runs_the_command_as_given() -> None:
    """`docker run IMAGE serve …` and the command of the endpoint: no entry point precedes them."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "ENTRYPOINT" not in dockerfile
    assert "ENV PATH=/opt/stbir/bin:$PATH" in dockerfile


def test_prometheus_scrapes_the_port_of_the_endpoint() -> None:
    port = re.search(r"--metrics-export-port=(\d+)", SERVICES["endpoint"]["command"][-1])
    assert port is not None
    [job] = config("prometheus")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"endpoint:{port[1]}"]}]
    [source] = config("grafana_datasources")["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_mounted_files_exist_where_the_configuration_reads_them() -> None:
    mounts = dict(
        each.removeprefix("./").split(":")[:2]
        for name in ("prometheus", "grafana")
        for each in SERVICES[name]["volumes"]
        if each.startswith("./")
    )
    assert all((ROOT / source).exists() for source in mounts)
    assert set(config("prometheus")["rule_files"]) <= set(mounts.values())
    [provider] = config("grafana_dashboards")["providers"]
    assert provider["options"]["path"] == mounts["deploy/grafana"]


def test_ports_are_open_to_this_machine_only_and_secrets_are_required() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert set(re.findall(r"\$\{(\w+):\?", TEXT)) == {
        *("RAY_AUTH_TOKEN", "MINIO_PASSWORD", "GRAFANA_PASSWORD", "KEYS")
    }


def test_names_of_services_configs_and_volumes_are_defined() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
        assert {each["source"] for each in service.get("configs", ())} <= COMPOSE["configs"].keys()
    assert {each.split(":")[0] for name in ("minio", "prometheus") for each in SERVICES[name]["volumes"]} - {
        "./deploy/grafana/alerts.yaml"
    } == COMPOSE["volumes"].keys()

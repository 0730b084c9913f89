"""The commands of docs/own_data.md, from a table to an answered query."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.head import Head
from tests.cluster.test_documented_commands import adapt, job_names, run, serving
from tests.data.image_files import drawing
from tests.documented_commands import document_commands, documented
from tests.own_data import own_data_replacements, write_own_data
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint

NUM_PHOTOS = 200  # more than a warning asks for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a training run, and an endpoint


@pytest.fixture(scope="module")
def outputs(head: Head, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of each command by name, their output folder as `out`, that of the photos as `photos`.

    CLIP's weights cannot be downloaded here: a checkpoint of tiny encoders stands where `init_checkpoint.py`
    writes CLIP.
    """
    out = tmp_path_factory.mktemp("out")
    save_smoke_checkpoint(f"{out}/clip")
    replacements = {r"\bout/": f"{out}/"}
    data = write_own_data(tmp_path_factory.mktemp("own"), NUM_PHOTOS)
    replacements |= own_data_replacements(data)
    variables = {**head.variables, "RAY_ADDRESS": head.address}
    summaries: dict[str, Any] = {"out": out, "photos": data / "photos"}
    commands = documented("docs/own_data.md", "python ray_jobs/")
    for name, command in zip(job_names(commands), commands, strict=True):
        summaries[name] = json.loads(run(adapt(command, replacements), variables).splitlines()[-1])
    return summaries


def test_the_page_has_at_most_twelve_commands() -> None:
    assert len(document_commands("docs/own_data.md")) <= 12


def test_the_commands_lead_from_a_table_to_a_gallery(outputs: dict[str, Any]) -> None:
    shards = outputs["prepare_shards"]
    assert shards["counts"]["ok"] == NUM_PHOTOS
    assert shards["counts"]["quarantined"] == shards["counts"]["bad_sketches"] == 0
    assert shards["unused"] == {}
    assert set(shards["splits"]) == {"train", "val", "test"}
    assert outputs["train"]["recipe"] == "finetune"
    assert outputs["embed_gallery"]["ok"] == NUM_PHOTOS


def test_the_endpoint_answers_the_query_of_the_page(outputs: dict[str, Any], tmp_path: Path) -> None:
    drawing().save(tmp_path / "me.png")
    [serve] = documented("docs/own_data.md", "serve run")
    [curl] = documented("docs/own_data.md", "curl")
    [client] = documented("docs/own_data.md", "stbir search")
    replacements = {r"\bme\.png": str(tmp_path / "me.png")}
    assert [serve] == documented("README.md", "serve run")
    with serving(outputs["out"]):
        answer, table = json.loads(run(adapt(curl, replacements))), run(adapt(client, replacements))
    photo_ids = {entry.name for entry in outputs["photos"].rglob("*.png")}
    assert all(hit["photo_id"].rpartition("/")[2] in photo_ids for hit in answer["hits"])
    assert any(name in table for name in photo_ids)

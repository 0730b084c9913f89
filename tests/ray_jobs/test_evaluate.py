import json
from pathlib import Path

import pytest

from ray_jobs.evaluate import parser
from ray_jobs.jobs.evaluate import evaluate_checkpoint
from ray_jobs.recipes import recipe
from stbir.data.schema import Row
from stbir.data.shard_writer import publish, write_rows
from stbir.embedding.queries import embed
from stbir.errors import InputError
from stbir.evaluation.evaluate import evaluate
from stbir.evaluation.report import robustness_table
from stbir.evaluation.robustness import robustness
from stbir.model import builder, checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.conftest import run_command
from tests.gallery.world import row, synthetic

ROWS: list[Row] = [
    {**row(i % 8, i // 8, sketches=i % 3), "text_source": "machine_written"} for i in range(20)
]
TRAIN: list[Row] = [{**row(7, 7), "photo_id": "elsewhere", "split": "train"}]


def shards(uri: str, rows: list[Row]) -> str:
    folder = Folder(uri)
    publish(folder, [write_rows(folder, 0, rows)], {"in": len(rows), "ok": len(rows), "quarantined": 0}, {})
    return uri


def smoke(uri: str) -> str:
    config = recipe("smoke")
    checkpoint.save(uri, "000", builder.build(config.model, 0), config, made_from="", counts={})
    return uri


def run(**options: object) -> dict[str, object]:
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return evaluate_checkpoint(parser().parse_args(words))


@pytest.mark.slow  # a command's start-up, against a real S3 server
def test_the_command_on_s3(s3):
    place = f"{s3}/evaluate"
    model, data = smoke(f"{place}/checkpoint"), shards(f"{place}/shards", [*TRAIN, *ROWS])
    ran = run_command(
        "evaluate", "--checkpoint", model, "--shards", data, "--split", "test", "--out", f"{place}/r"
    )
    assert ran.code == 0, ran.stderr
    folder = Folder(f"{place}/r")
    report = json.loads(folder.read("report.json"))
    assert report["results"] == ran.summary["results"]
    assert report["gallery_size"] == 20
    assert report["text_sources"] == {"machine_written": 20}
    manifest = read_manifest(folder, "report")
    assert manifest.made_from == report["checkpoint"] == checkpoint.read_digest(model)
    header, *lines = ran.stdout.splitlines()[-5:-1]
    assert header.split()[:3] == ["query", "n", "Acc@1"]
    assert [line.split()[0] for line in lines] == ["sketch", "text", "sketch+text"]
    assert "7 of 20 photos could not ask sketch" in ran.stderr


@pytest.mark.parametrize("protocol", ["per-sketch", "per-photo"])
def test_the_report_is_the_librarys_evaluation(tmp_path: Path, protocol):
    """Also on shards that hold a test split only."""
    model, data = smoke(str(tmp_path / "model")), shards(str(tmp_path / "shards"), ROWS)
    ran = run(checkpoint=model, shards=data, split="test", out=tmp_path / "report", protocol=protocol)
    assert ran["results"] == evaluate(checkpoint.load(model), ROWS, protocol).results
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


def test_robustness_adds_to_the_report_and_changes_nothing_else(tmp_path: Path, capsys):
    rows = [{**one, "split": "test", "text_source": "machine_written"} for one in synthetic(5)]
    model, data = smoke(str(tmp_path / "model")), shards(str(tmp_path / "shards"), rows)
    words = f"--checkpoint {model} --shards {data} --split test --out {tmp_path}"
    plain = evaluate_checkpoint(parser().parse_args(f"{words}/plain".split()))
    capsys.readouterr()
    more = evaluate_checkpoint(parser().parse_args(f"{words}/more --robustness --seed 7".split()))
    retriever = checkpoint.load(model)
    expected = robustness(retriever, embed(retriever, rows), rows, seed=7)
    assert more == {**plain, "report": f"{tmp_path}/more", "robustness": expected.as_dict()}
    report = json.loads((tmp_path / "more" / "report.json").read_bytes())
    assert report["robustness"] == expected.as_dict()
    assert "Poor queries" in (tmp_path / "more" / "report.html").read_text()
    assert "Poor queries" not in (tmp_path / "plain" / "report.html").read_text()
    assert robustness_table(expected) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"checkpoint": "nowhere"}, "no checkpoint here"),
        ({"shards": "nowhere"}, "no shards here"),
        ({"split": "train"}, "split 'train' is empty; there is test"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, options, says):
    given = {
        "checkpoint": smoke(str(tmp_path / "model")),
        "shards": shards(str(tmp_path / "shards"), ROWS),
        "split": "test",
        "out": tmp_path / "report",
    }
    with pytest.raises(InputError, match=says):
        run(**{**given, **options})
    assert not (tmp_path / "report").exists()


def test_another_artifact_is_not_overwritten(tmp_path: Path):
    model, data = smoke(str(tmp_path / "model")), shards(str(tmp_path / "shards"), ROWS)
    with pytest.raises(InputError, match="holds a checkpoint, not report"):
        run(checkpoint=model, shards=data, split="test", out=model)
    assert read_manifest(Folder(model), "checkpoint").kind == "checkpoint"

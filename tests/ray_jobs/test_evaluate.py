import json
import re
from pathlib import Path

import pytest

from ray_jobs.evaluate import parser
from ray_jobs.jobs.evaluate import evaluate_checkpoint
from stbir.data.schema import Row
from stbir.embedding.match_probability import fit_match_curves, from_details
from stbir.embedding.queries import embed
from stbir.errors import InputError
from stbir.evaluation.evaluate import evaluate
from stbir.evaluation.report import robustness_table
from stbir.evaluation.robustness import evaluate_robustness
from stbir.model import checkpoint
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.conftest import run_command
from tests.gallery.toy_dataset import row, synthetic_rows
from tests.ray_jobs.test_embed_gallery import save_smoke_checkpoint, write_shards

ROWS: list[Row] = [
    {**row(i % 8, i // 8, sketches=i % 3), "text_source": "machine_written"} for i in range(20)
]
TRAIN: list[Row] = [{**row(7, 7), "photo_id": "train", "split": "train"}]


def run(**options: object) -> dict[str, object]:
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return evaluate_checkpoint(parser().parse_args(arguments))


@pytest.mark.slow  # starts a command and an S3 server
def test_the_command_on_s3(s3):
    folder = f"{s3}/evaluate"
    model = save_smoke_checkpoint(f"{folder}/checkpoint")
    data = write_shards(f"{folder}/shards", [*TRAIN, *ROWS])
    ran = run_command(
        "evaluate", "--checkpoint", model, "--shards", data, "--split", "test", "--out", f"{folder}/r"
    )
    assert ran.code == 0, ran.stderr
    out = Folder(f"{folder}/r")
    report = json.loads(out.read("report.json"))
    assert report["results"] == ran.summary["results"]
    assert report["gallery_size"] == 20
    assert report["text_sources"] == {"machine_written": 20}
    manifest = read_manifest(out, "report")
    assert manifest.made_from == report["checkpoint"] == checkpoint.read_digest(model)
    header, *lines = ran.stdout.splitlines()[:-1]
    assert header.split()[:3] == ["query", "n", "Acc@1"]
    assert [line.split()[0] for line in lines[:3]] == ["sketch", "text", "sketch+text"]
    shares = [re.split(r"\s{2,}", line)[:2] for line in lines[-5:]]
    assert shares == [[share["found_by"], str(share["n"])] for share in report["modality_shares"]]
    assert "7 of 20 photos have no sketch query" in ran.stderr


@pytest.mark.parametrize("protocol", ["per-sketch", "per-photo"])
def test_report_equals_the_evaluation_of_the_library(tmp_path: Path, protocol):
    """The shards have a test split only."""
    model, data = save_smoke_checkpoint(str(tmp_path / "model")), write_shards(str(tmp_path / "shards"), ROWS)
    ran = run(checkpoint=model, shards=data, split="test", out=tmp_path / "report", protocol=protocol)
    assert ran["results"] == evaluate(checkpoint.load(model), ROWS, protocol).results
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


def test_robustness_adds_one_field_and_one_section(tmp_path: Path, capsys):
    rows = [{**row, "split": "test", "text_source": "machine_written"} for row in synthetic_rows(5)]
    model, data = save_smoke_checkpoint(str(tmp_path / "model")), write_shards(str(tmp_path / "shards"), rows)
    arguments = f"--checkpoint {model} --shards {data} --split test --out {tmp_path}"
    plain = evaluate_checkpoint(parser().parse_args(f"{arguments}/plain".split()))
    capsys.readouterr()
    more = evaluate_checkpoint(parser().parse_args(f"{arguments}/more --robustness --seed 7".split()))
    retriever = checkpoint.load(model)
    expected = evaluate_robustness(retriever, embed(retriever, rows), rows, seed=7)
    assert more == {**plain, "report": f"{tmp_path}/more", "robustness": expected.as_dict()}
    report = json.loads((tmp_path / "more" / "report.json").read_bytes())
    assert report["robustness"] == expected.as_dict()
    assert "Robustness to corrupted queries" in (tmp_path / "more" / "report.html").read_text()
    assert "Robustness to corrupted queries" not in (tmp_path / "plain" / "report.html").read_text()
    assert robustness_table(expected) in capsys.readouterr().out


def test_probabilities_are_stored_and_leave_the_digest(tmp_path: Path) -> None:
    rows = [{**row, "split": "test", "text_source": "machine_written"} for row in synthetic_rows(40)]
    model, data = save_smoke_checkpoint(str(tmp_path / "model")), write_shards(str(tmp_path / "shards"), rows)
    digest, arguments = checkpoint.read_digest(model), f"--checkpoint {model} --shards {data} --split test"
    command = f"{arguments} --store-probabilities --out {tmp_path}/report"
    ran = evaluate_checkpoint(parser().parse_args(command.split()))
    assert checkpoint.read_digest(model) == digest
    stored = from_details(read_manifest(Folder(model), "checkpoint").details["match"])
    assert stored == fit_match_curves(embed(checkpoint.load(model), rows))
    assert "sketch" in ran["reliability"]
    assert "Probability of a match" in (tmp_path / "report" / "report.html").read_text()


def test_probabilities_of_too_few_queries_are_refused(tmp_path: Path) -> None:
    model, data = save_smoke_checkpoint(str(tmp_path / "model")), write_shards(str(tmp_path / "shards"), ROWS)
    command = f"--checkpoint {model} --shards {data} --split test --out {tmp_path}/r --store-probabilities"
    with pytest.raises(InputError, match="--store-probabilities: no kind of query has 30 queries"):
        evaluate_checkpoint(parser().parse_args(command.split()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "nowhere"}, "no checkpoint here"),
        ({"shards": "nowhere"}, "no shards here"),
        ({"split": "train"}, "split 'train' is empty; available: test"),
    ],
)
def test_invalid_input_is_refused(tmp_path: Path, options, message):
    defaults = {
        "checkpoint": save_smoke_checkpoint(str(tmp_path / "model")),
        "shards": write_shards(str(tmp_path / "shards"), ROWS),
        "split": "test",
        "out": tmp_path / "report",
    }
    with pytest.raises(InputError, match=message):
        run(**{**defaults, **options})
    assert not (tmp_path / "report").exists()


def test_artifact_of_another_kind_is_not_overwritten(tmp_path: Path):
    model, data = save_smoke_checkpoint(str(tmp_path / "model")), write_shards(str(tmp_path / "shards"), ROWS)
    with pytest.raises(InputError, match="holds a checkpoint, not report"):
        run(checkpoint=model, shards=data, split="test", out=model)
    assert read_manifest(Folder(model), "checkpoint").kind == "checkpoint"

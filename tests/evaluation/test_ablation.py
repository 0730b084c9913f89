from pathlib import Path

from stbir.evaluation import ablation
from stbir.evaluation.comparison import compare
from stbir.storage.folder import Folder
from stbir.storage.manifest import read_manifest
from tests.evaluation.test_comparison import result

TRIALS = [
    {**result(recipe, f"fold{n}", 0, value + n), "seconds": 3}
    for recipe, value in (("base", 40.0), ("ablated", 30.0), ("<other>", 41.0))
    for n in range(3)
]


def test_table_has_spreads_and_differences() -> None:
    lines = ablation.table(compare(TRIALS)).splitlines()
    assert lines[1].split() == ["base", *["41.0", "±", "1.0"] * 3, *["–"] * 3]
    assert lines[3].split()[-6:] == ["-10.0", "[-10.0,", "-10.0]*", "–", "–", "–"]


def test_page_is_self_contained_and_lists_all_trials(tmp_path: Path) -> None:
    manifest = ablation.write(str(tmp_path), compare(TRIALS), TRIALS, "sha256:shards", folds=["fold0"])
    assert read_manifest(Folder(str(tmp_path)), "ablation") == manifest
    page = (tmp_path / "ablation.html").read_text()
    assert page.count("<td>fold1</td>") == 3
    assert "&lt;other&gt;" in page
    assert "<other>" not in page
    assert "<svg" in page
    assert "-10.0 [-10.0, -10.0]*" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_one_recipe_has_no_paired_differences(tmp_path: Path) -> None:
    ablation.write(str(tmp_path), compare(TRIALS[:3]), TRIALS[:3], "sha256:shards")
    assert "Paired differences" not in (tmp_path / "ablation.html").read_text()

import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from ray_jobs.recipes import recipe
from stbir.augmentation.query_corruption import LEVELS, corrupt_row
from stbir.embedding.queries import embed
from stbir.evaluation import report
from stbir.evaluation.evaluate import evaluate, evaluate_features
from stbir.evaluation.examples import IMAGE_SIDE, corruption_examples, data_uri, examples
from stbir.evaluation.robustness import Robustness, evaluate_robustness
from stbir.gallery.thumbnail import thumbnail
from stbir.model import builder
from stbir.storage.folder import Folder
from stbir.storage.manifest import content_digest, read_manifest
from tests.gallery.toy_dataset import row, synthetic_rows, toy_retriever

WORLD = [row(shape, colour, category=f"<{shape}>") for shape in range(4) for colour in range(3)]
DIGEST = "sha256:abc"


class Page(HTMLParser):
    """The images, text and links of a page; checks that tags are closed in order."""

    VOID = ("meta", "img", "br", "path", "use", "rect", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes["src"])
        self.links += [value for name, value in attrs if name in ("href", "src") and tag != "img"]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(toy_retriever(), WORLD)


@pytest.fixture(scope="module")
def content(evaluation):
    facts = {"date": "2026-11-30", "recipe": "smoke", "model": {"sketch": "a", "photo": "b"}}
    return report.report(evaluation, DIGEST, "test", text_sources={"machine_written": 12}, **facts)


@pytest.fixture(scope="module")
def page(content, evaluation):
    return report.html(content, evaluation, WORLD)


def test_json_has_the_documented_fields(content):
    assert {"checkpoint", "split", "protocol", "gallery_size", "results", "by_category"} <= set(content)
    assert list(content["results"]) == ["sketch", "text", "sketch+text"]
    for result in content["results"].values():
        averaged = ["acc@1", "acc@5", "acc@10", "map"]
        bounds = {f"{name}_{end}" for name in averaged for end in ("low", "high")}
        assert set(result) == {"n", *averaged, *bounds, "median_rank"}
        assert all(result[f"{name}_low"] <= result[name] <= result[f"{name}_high"] for name in averaged)
    assert sum(share["n"] for share in content["modality_shares"]) == content["results"]["sketch+text"]["n"]
    assert set(content["by_category"]) == {"<0>", "<1>", "<2>", "<3>"}


def test_page_is_self_contained(page):
    parsed = Page(page)
    assert parsed.images
    for uri in parsed.images:
        kind, _, data = uri.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= IMAGE_SIDE
    assert all(link.startswith("#") for link in parsed.links)  # inside the SVG


def test_page_shows_the_results(page, content):
    text = Page(page).text
    for kind, result in content["results"].items():
        line = [str(result["n"]), *report.format_row(result)]
        assert re.search(kind.replace("+", r" \+ ") + r"\s*" + r"\s*".join(map(re.escape, line)), text)
    assert DIGEST in text
    assert "12 captions: machine written" in text
    assert re.search(r"either alone\s*\d+\s*[\d.]+ \[\d+, \d+\]", text)
    assert re.search(r"date\s*2026-11-30\s*recipe\s*smoke\s*model\s*sketch a · photo b", text)


def test_names_are_escaped(page):
    assert "<0>" in Page(page).text
    assert "&lt;0&gt;" in page


def test_page_is_deterministic(content, evaluation, page):
    assert report.html(content, evaluation, WORLD) == page


@pytest.fixture(scope="module")
def corrupted():
    rows = synthetic_rows(5)
    retriever = builder.build_retriever(recipe("smoke").model, seed=0)
    features = embed(retriever, rows)
    return rows, evaluate_features(features), evaluate_robustness(retriever, features, rows, seed=4)


def test_robustness_has_its_own_section(corrupted):
    rows, evaluation, robustness = corrupted
    content = report.report(evaluation, DIGEST, "test")
    section = report.robustness_section(robustness, rows)
    plain, html = (report.html(content, evaluation, rows, sections) for sections in ([], [section]))
    page = Page(html)
    text = " ".join(page.text.split())
    for line in report.robustness_rows(robustness):
        assert re.search(r"\s*".join(map(re.escape, line)).replace(r"\+", r" \+ "), text)
    assert "drawn with seed 4" in text
    assert len(page.images) == len(Page(plain).images) + 3 * len(LEVELS)
    assert all(link.startswith("#") for link in page.links)
    names = re.findall(r'<clipPath id="(\w+)"', html)
    assert len(names) == len(set(names)) > len(re.findall("<clipPath", plain))
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", html)


def test_corruption_examples_show_one_query_at_each_level(corrupted):
    rows, _, robustness = corrupted
    shown = corruption_examples(rows, robustness.seed)
    assert [[query.level for query in example] for example in shown] == [list(LEVELS)] * 3
    for example, clean in zip(shown, rows, strict=False):
        assert example[0].text == clean["text"]
        assert example[0].sketch == data_uri(clean["sketches"][0])
        assert [query.text for query in example] == [
            corrupt_row(clean, severity, robustness.seed)["text"] for severity in LEVELS.values()
        ]
        assert len({query.sketch for query in example}) == 4


def test_robustness_rows_have_relative_accuracy():
    levels = {
        level: {kind: {"acc@1": value, "acc@5": 50.0} for kind in ("sketch", "text", "sketch+text")}
        for level, value in zip(LEVELS, (80.0, 60.0, 40.0, 10.0), strict=True)
    }
    for level in levels.values():
        level["text"] = {"acc@1": None, "acc@5": None}
        level["sketch+text"] = {"acc@1": 0.0, "acc@5": 0.0}
    robustness = Robustness(0, dict.fromkeys(("sketch", "text", "both"), levels))
    zeros = ["0.0"] * 6
    assert report.robustness_rows(robustness) == [
        ["sketch", "sketch", "80.0", "60.0 (75 %)", "40.0 (50 %)", "10.0 (12 %)", "48.3", "50.0"],
        ["sketch", "sketch+text", *zeros],
        ["text", "text", *["–"] * 6],
        ["text", "sketch+text", *zeros],
        ["both", "sketch+text", *zeros],
    ]
    lines = report.robustness_table(robustness).splitlines()
    assert len(lines) == 6
    assert len({len(line) for line in lines}) == 1


def test_robustness_section_without_queries():
    rows = [row(0, 0, sketches=0, text=False)]
    robustness = evaluate_robustness(toy_retriever(), embed(toy_retriever(), rows), rows)
    section = report.robustness_section(robustness, rows)
    assert "<img" not in section
    assert "–" in section


def test_plot_colours_are_css_variables(page):
    assert "var(--sketch-text)" in page
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", page)


def test_examples_mark_the_target_photo(evaluation):
    for example in examples(evaluation, WORLD):
        targets = [hit for hit in example.hits if hit.is_target]
        assert len(targets) + (example.missed is not None) == 1
        assert (example.rank == 1) == (bool(targets) and example.hits[0].is_target)
        assert example.ranks == {"sketch": 3, "text": 4, "sketch+text": 1}


def test_examples_are_hits_then_misses_one_per_photo():
    rows = [row(0, colour, sketches=2) for colour in range(6)] + [row(1, 6, sketches=2)]
    for mislabelled in rows[:6]:
        mislabelled["text"] = "7"  # fits no photo: only the last row has rank 1
    shown = examples(evaluate(toy_retriever(), rows), rows, count=3)
    assert [example.rank for example in shown] == [1, 6, 6, 6]
    assert shown[0].text == "6"
    assert all(example.sketch for example in shown)


@pytest.mark.parametrize(
    ("rows", "sketch", "text"),
    [([row(0, 0, text=False), row(1, 1, text=False)], True, False), ([row(0, 0, sketches=0)], False, True)],
)
def test_examples_of_one_modality(rows, sketch, text):
    for example in examples(evaluate(toy_retriever(), rows), rows):
        assert (example.sketch is not None, example.text is not None) == (sketch, text)


def test_page_without_queries():
    rows = [row(0, 0, sketches=0, text=False)]
    evaluation = evaluate(toy_retriever(), rows)
    page = report.html(report.report(evaluation, DIGEST, "test"), evaluation, rows)
    assert "1 photo without a sketch query." in " ".join(Page(page).text.split())


def test_manifest_covers_both_files(tmp_path, content, page):
    folder = Folder(str(tmp_path / "report"))
    written = report.write(folder.uri, content, page)
    assert json.loads(folder.read("report.json")) == content
    assert read_manifest(folder, "report") == written
    assert written.made_from == DIGEST
    assert written.digest == content_digest(folder, ["report.json", "report.html"])
    assert written.counts == {"photos": 12, "sketch": 12, "text": 12, "sketch+text": 12}


def test_table_columns_are_aligned():
    lines = report.table(evaluate(toy_retriever(), [row(0, 0), row(1, 1, sketches=0)]).results).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert re.split(r"\s{2,}", lines[1]) == ["sketch", "1", *["100.0 [100, 100]"] * 4, "1.0"]


def test_thumbnails_keep_the_aspect_ratio():
    buffer = io.BytesIO()
    Image.new("RGBA", (800, 400), (0, 0, 0, 0)).save(buffer, "PNG")
    small = Image.open(io.BytesIO(thumbnail(buffer.getvalue(), side=100)))
    assert (small.size, small.format, small.getpixel((50, 25))) == ((100, 50), "JPEG", (255, 255, 255))

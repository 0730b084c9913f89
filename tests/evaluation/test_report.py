import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from ray_jobs.recipes import recipe
from stbir.augmentation.query_corruption import LEVELS, distorted
from stbir.embedding.queries import embed
from stbir.evaluation import report
from stbir.evaluation.evaluate import evaluate, evaluate_embedded
from stbir.evaluation.examples import data_uri, distorted_examples, examples
from stbir.evaluation.robustness import Robustness, robustness
from stbir.gallery.thumbnail import thumbnail
from stbir.model import builder
from stbir.storage.folder import Folder
from stbir.storage.manifest import content_digest, read_manifest
from tests.gallery.world import knowing, row, synthetic

WORLD = [row(shape, colour, category=f"<{shape}>") for shape in range(4) for colour in range(3)]
DIGEST = "sha256:abc"


class Page(HTMLParser):
    """What a browser would see: images, words, links out, and whether tags are closed in order."""

    VOID = ("meta", "img", "br", "path", "use", "rect", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
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
        self.words += data


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(knowing(), WORLD)


@pytest.fixture(scope="module")
def found(evaluation):
    return report.report(evaluation, DIGEST, "test", text_sources={"machine_written": 12})


@pytest.fixture(scope="module")
def page(found, evaluation):
    return report.html(found, evaluation, WORLD)


def test_the_json_holds_what_is_promised(found):
    assert {"checkpoint", "split", "protocol", "gallery_size", "results", "by_category"} <= set(found)
    assert list(found["results"]) == ["sketch", "text", "sketch+text"]
    for result in found["results"].values():
        assert list(result) == ["n", "acc@1", "acc@5", "acc@10", "map", "median_rank"]
    assert set(found["by_category"]) == {"<0>", "<1>", "<2>", "<3>"}


def test_the_page_needs_nothing_else(page):
    seen = Page(page)
    assert seen.images
    for uri in seen.images:
        kind, _, data = uri.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= 128
    assert all(link.startswith("#") for link in seen.links)  # into the page's own SVG


def test_the_page_says_the_figures(page, found):
    words = Page(page).words
    for kind, result in found["results"].items():
        line = [str(result["n"]), *report.cells(result)]
        assert re.search(kind.replace("+", r" \+ ") + r"\s*" + r"\s*".join(map(re.escape, line)), words)
    assert DIGEST in words
    assert "12 captions: machine written" in words


def test_names_are_text_not_markup(page):
    assert "<0>" in Page(page).words
    assert "&lt;0&gt;" in page


def test_the_same_evaluation_gives_the_same_page(found, evaluation, page):
    assert report.html(found, evaluation, WORLD) == page


@pytest.fixture(scope="module")
def poor():
    rows = synthetic(5)
    retriever = builder.build(recipe("smoke").model, seed=0)
    embedded = embed(retriever, rows)
    return rows, evaluate_embedded(embedded), robustness(retriever, embedded, rows, seed=4)


def test_poor_queries_have_a_section_of_their_own(poor):
    rows, evaluation, found = poor
    json_ = report.report(evaluation, DIGEST, "test")
    section = report.robustness_section(found, rows)
    without, page = report.html(json_, evaluation, rows), report.html(json_, evaluation, rows, [section])
    seen = Page(page)
    words = " ".join(seen.words.split())
    for line in report.robustness_lines(found):
        assert re.search(r"\s*".join(map(re.escape, line)).replace(r"\+", r" \+ "), words)
    assert "drawn by seed 4" in words
    assert len(seen.images) == len(Page(without).images) + 3 * len(LEVELS)
    assert all(link.startswith("#") for link in seen.links)
    names = re.findall(r'<clipPath id="(\w+)"', page)
    assert len(names) == len(set(names)) > len(re.findall("<clipPath", without))
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", page)


def test_a_section_shows_the_same_query_at_each_level(poor):
    rows, _, found = poor
    shown = distorted_examples(rows, found.seed)
    assert [[poor.level for poor in grades] for grades in shown] == [list(LEVELS)] * 3
    for grades, clean in zip(shown, rows, strict=False):
        assert grades[0].words == clean["text"]
        assert grades[0].sketch == data_uri(clean["sketches"][0])
        assert [poor.words for poor in grades] == [
            distorted(clean, severity, found.seed)["text"] for severity in LEVELS.values()
        ]
        assert len({poor.sketch for poor in grades}) == 4


def test_the_lines_of_poor_queries_say_what_is_kept():
    levels = {
        level: {kind: {"acc@1": value, "acc@5": 50.0} for kind in ("sketch", "text", "sketch+text")}
        for level, value in zip(LEVELS, (80.0, 60.0, 40.0, 10.0), strict=True)
    }
    for level in levels.values():
        level["text"] = {"acc@1": None, "acc@5": None}
        level["sketch+text"] = {"acc@1": 0.0, "acc@5": 0.0}
    found = Robustness(0, dict.fromkeys(("sketch", "text", "both"), levels))
    zeros = ["0.0"] * 6
    assert report.robustness_lines(found) == [
        ["sketch", "sketch", "80.0", "60.0 (75 %)", "40.0 (50 %)", "10.0 (12 %)", "48.3", "50.0"],
        ["sketch", "sketch+text", *zeros],
        ["text", "text", *["–"] * 6],
        ["text", "sketch+text", *zeros],
        ["both", "sketch+text", *zeros],
    ]
    lines = report.robustness_table(found).splitlines()
    assert len(lines) == 6
    assert len({len(line) for line in lines}) == 1


def test_poor_queries_that_nobody_asks_still_make_a_section():
    rows = [row(0, 0, sketches=0, text=False)]
    embedded = embed(knowing(), rows)
    section = report.robustness_section(robustness(knowing(), embedded, rows), rows)
    assert "<img" not in section
    assert "–" in section


def test_colours_of_the_curves_follow_the_page(page):
    assert "var(--sketch-text)" in page
    assert not re.search(r"#0[1-5]0[1-5]0[1-5]", page)


def test_examples_show_the_right_photo_framed_or_beyond(evaluation):
    for example in examples(evaluation, WORLD):
        framed = [picture for picture in example.found if picture.right]
        assert len(framed) + (example.beyond is not None) == 1
        assert (example.rank == 1) == (bool(framed) and example.found[0].right)
        assert example.ranks == {"sketch": 3, "text": 4, "sketch+text": 1}


def test_examples_are_successes_then_failures_one_a_photo():
    blind = [row(0, colour, sketches=2) for colour in range(6)] + [row(1, 6, sketches=2)]
    for each in blind[:6]:
        each["text"] = "7"  # words that fit no photo: only the last can be found
    shown = examples(evaluate(knowing(), blind), blind, each=3)
    assert [example.rank for example in shown] == [1, 6, 6, 6]
    assert shown[0].words == "6"
    assert all(example.sketch for example in shown)


@pytest.mark.parametrize(
    ("rows", "sketch", "words"),
    [([row(0, 0, text=False), row(1, 1, text=False)], True, False), ([row(0, 0, sketches=0)], False, True)],
)
def test_examples_of_one_modality(rows, sketch, words):
    for example in examples(evaluate(knowing(), rows), rows):
        assert (example.sketch is not None, example.words is not None) == (sketch, words)


def test_photos_that_can_ask_nothing_still_make_a_page():
    rows = [row(0, 0, sketches=0, text=False)]
    evaluation = evaluate(knowing(), rows)
    page = report.html(report.report(evaluation, DIGEST, "test"), evaluation, rows)
    assert "1 photo could not ask sketch." in " ".join(Page(page).words.split())


def test_the_manifest_covers_both_files(tmp_path, found, page):
    folder = Folder(str(tmp_path / "report"))
    written = report.write(folder.uri, found, page)
    assert json.loads(folder.read("report.json")) == found
    assert read_manifest(folder, "report") == written
    assert written.made_from == DIGEST
    assert written.digest == content_digest(folder, ["report.json", "report.html"])
    assert written.counts == {"photos": 12, "sketch": 12, "text": 12, "sketch+text": 12}


def test_the_table_is_aligned():
    lines = report.table(evaluate(knowing(), [row(0, 0), row(1, 1, sketches=0)]).results).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["sketch", "1", "100.0", "100.0", "100.0", "100.0", "1.0"]


def test_thumbnails_are_small_and_keep_their_proportion():
    buffer = io.BytesIO()
    Image.new("RGBA", (800, 400), (0, 0, 0, 0)).save(buffer, "PNG")
    small = Image.open(io.BytesIO(thumbnail(buffer.getvalue(), side=100)))
    assert (small.size, small.format, small.getpixel((50, 25))) == ((100, 50), "JPEG", (255, 255, 255))

"""The report page in Chromium: tiles fill their row, and a click enlarges an image."""

from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from stbir.evaluation import report
from stbir.evaluation.evaluate import evaluate
from tests.gallery.toy_dataset import row, toy_retriever
from tests.serve.web.conftest import ARGUMENTS, CHROMIUM, collect_errors

MIN_TILE = 160  # pixels
LEFTS_AND_RIGHTS = """() => [...document.querySelectorAll(".hits")].map((list) => {
  const boxes = [list, ...list.children].map((element) => element.getBoundingClientRect());
  return boxes.map(({ left, right, width }) => [left, right, width]);
})"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row(shape, colour) for shape in range(4) for colour in range(3)]
    evaluation = evaluate(toy_retriever(), rows)
    path = tmp_path_factory.mktemp("report") / report.HTML
    path.write_text(report.html(report.report(evaluation, "sha256:abc", "test"), evaluation, rows))
    return path


def test_tiles_fill_the_row_and_a_click_enlarges(file: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; run apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        errors = collect_errors(page)
        page.goto(file.as_uri())
        for (left, right, _), *tiles in page.evaluate(LEFTS_AND_RIGHTS):
            assert all(width >= MIN_TILE for _, _, width in tiles)
            assert (tiles[0][0], max(tile[1] for tile in tiles)) == pytest.approx((left, right), abs=1)
        photo = page.locator(".hits .photo").first
        name = photo.get_attribute("title")
        photo.click()
        expect(page.locator("#enlarged p")).to_have_text(name or "")
        enlarged = page.locator("#enlarged img").bounding_box()
        assert enlarged is not None
        assert enlarged["width"] > 3 * MIN_TILE
        page.keyboard.press("Escape")
        expect(page.locator("#enlarged")).to_be_hidden()
        assert errors == []

"""Steering an answer in the pad: negatives, marks, near-duplicates, and the probability of a match."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

import stbir
from tests.serve.conftest import CATEGORIES, draw_shape
from tests.serve.local import serve_application
from tests.serve.web.actions import (
    ARC,
    LINE,
    assert_link_is_refused,
    open_fragment,
    search_after,
    search_by_stroke,
    select_category,
    to_fragment,
)
from tests.serve.web.conftest import PHONE, FindViolations, collect_errors, open_pad

COPY_QUALITIES = (60, 75, 90)  # of JPEG
Change = Callable[[list[dict[str, Any]]], object]


@pytest.fixture(scope="module")
def gallery(checkpoint_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of a gallery of 12 boxes and 12 discs. Three boxes are recompressed copies of the first."""
    folder = tmp_path_factory.mktemp("photos")
    for index in (*range(18), 19, 21, 23):
        path = folder / CATEGORIES[index % 2] / f"{index:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(draw_shape(index))
    for quality in COPY_QUALITIES:
        with Image.open(folder / CATEGORIES[0] / "00.jpg") as image:
            image.save(folder / CATEGORIES[0] / f"00-{quality}.jpg", quality=quality)
    uri = str(folder.parent / f"{folder.name}-gallery")
    stbir.index(folder, stbir.load(checkpoint_uri, device="cpu"), uri)
    return uri


@pytest.fixture(scope="module")
def url(checkpoint_uri: str, gallery: str) -> Iterator[str]:
    """The URL of the pad of the real application, without Ray."""
    with serve_application(checkpoint_uri, gallery) as url:
        yield url


@pytest.fixture
def pad(context: BrowserContext, url: str) -> Iterator[Page]:
    """The pad with the results of a text. A console message or an exception of the page fails the test."""
    page = context.new_page()
    errors = collect_errors(page)
    page.goto(url)
    page.fill("#text", "a disc")
    expect(page.locator(".hit")).to_have_count(24)
    yield page
    page.close()
    assert errors == []


def change_hits(page: Page, change: Change) -> None:
    """Change the hits of each later response in place."""

    def fulfill(route: Route) -> None:
        response = route.fetch()
        body = response.json()
        change(body.get("hits", []))
        route.fulfill(response=response, json=body)

    page.route("**/v1/search", fulfill)


def set_match(best: float | None) -> Change:
    """The probability of the first hit; that of the others is 0."""

    def change(hits: list[dict[str, Any]]) -> None:
        for index, hit in enumerate(hits):
            hit["match"] = best if index == 0 or best is None else 0.0

    return change


def group_last(count: int, listed: int) -> Change:
    """Only the first hit is a group: of `count` photos, of which it lists the last hits."""

    def change(hits: list[dict[str, Any]]) -> None:
        ids = [hit["photo_id"] for hit in hits[-listed:]]
        for hit in hits:
            hit.update(count=1, duplicates=[])
        hits[0].update(count=count, duplicates=ids)

    return change


def has(**fields: Any) -> Callable[[dict[str, Any]], bool]:
    """Matches a search with these values; None: without the field."""
    return lambda body: all(body.get(name) == value for name, value in fields.items())


def photo_ids(page: Page) -> list[str]:
    uris: list[str] = page.locator(".hit img").evaluate_all("(images) => images.map((image) => image.src)")
    return [uri.partition("/photos/")[2].replace("%2F", "/") for uri in uris]


def mark(page: Page, index: int, name: str) -> dict[str, Any]:
    """Click "like" or "unlike" of a hit; the body of the search after it."""
    page.locator("#hits li").nth(index).hover()
    button = page.locator(f"#hits .{name}").nth(index)
    return search_after(page, button.click, lambda body: name in body)


def test_negative_is_entered_in_its_field_and_removed_by_its_chip(pad: Page) -> None:
    before = photo_ids(pad)
    for text in ("a box", "a box"):  # the same again after its removal
        pad.click("#without")
        pad.keyboard.type(f" {text} ")
        with pad.expect_response("**/v1/search") as response:
            pad.keyboard.press("Enter")
        assert response.value.ok
        assert response.value.request.post_data_json["without"] == [text]
        expect(pad.locator("#without")).to_have_value("")
        expect(pad.locator("#chips button")).to_have_text([f"without {text} ×"])
        expect(pad.locator("#filter-count")).to_be_empty()
        search_after(pad, pad.get_by_role("button", name=f"without {text}").click, has(without=None))
        expect(pad.locator("#without")).to_be_focused()
    assert sorted(photo_ids(pad)) == sorted(before)


def test_negatives_end_at_the_limit_of_the_server(pad: Page) -> None:
    names = ["red", "green", "blue", "white"]
    for count, name in enumerate(names, 1):
        pad.fill("#without", name)
        search_after(pad, lambda: pad.locator("#without").blur(), has(without=names[:count]))
    pad.fill("#without", "black")
    pad.keyboard.press("Enter")
    expect(pad.locator("#toast")).to_contain_text("At most 4 texts")
    expect(pad.locator("#without")).to_have_value("black")
    expect(pad.locator("#chips button")).to_have_count(4)


def test_marked_photos_leave_the_results_for_a_row_of_marks(pad: Page) -> None:
    ids = photo_ids(pad)
    assert mark(pad, 2, "like")["like"] == [ids[2]]
    expect(pad.locator(".hit")).to_have_count(23)
    assert ids[2] not in photo_ids(pad)
    second = photo_ids(pad)[0]
    assert has(like=[ids[2]], unlike=[second])(mark(pad, 0, "unlike"))
    expect(pad.locator(".hit")).to_have_count(22)
    names = [f"Remove mark: more like {ids[2]}", f"Remove mark: less like {second}"]
    for index, name in enumerate(names):
        expect(pad.locator("#marks li button").nth(index)).to_have_accessible_name(name)
    remove = pad.get_by_role("button", name=names[0])
    search_after(pad, remove.click, has(like=None, unlike=[second]))
    expect(pad.get_by_role("button", name=names[1])).to_be_focused()
    search_after(pad, lambda: pad.click("#clear-marks"), has(like=None, unlike=None))
    expect(pad.locator("#marks")).to_be_hidden()
    expect(pad.locator(".hit")).to_have_count(24)


def test_marks_are_a_query_by_themselves(pad: Page) -> None:
    liked = photo_ids(pad)[1]
    mark(pad, 1, "like")
    expect(pad.locator(".hit")).to_have_count(23)
    body = search_after(pad, lambda: pad.fill("#text", ""), has(text=None))
    assert body == {"like": [liked], "k": 24}
    expect(pad.locator(".hit")).to_have_count(23)
    pad.click("#clear-marks")
    expect(pad.locator("#examples")).to_be_visible()


def test_marks_by_keyboard(pad: Page) -> None:
    first = photo_ids(pad)[0]
    pad.locator("h1").click()
    pad.keyboard.press("r")
    search_after(pad, lambda: pad.keyboard.press("+"), has(like=[first]))
    expect(pad.locator(".hit")).to_have_count(23)
    expect(pad.locator(".hit").first).to_be_focused()
    pad.keyboard.press("Tab")
    expect(pad.locator("#hits .like").first).to_be_focused()
    expect(pad.locator("#hits .like").first).to_have_accessible_name("More like result 1")
    pad.keyboard.press("Tab")
    second = photo_ids(pad)[0]
    search_after(pad, lambda: pad.keyboard.press("Enter"), has(like=[first], unlike=[second]))
    pad.keyboard.press("w")
    expect(pad.locator("#without")).to_be_focused()


def test_marks_in_the_lightbox(pad: Page) -> None:
    ids = photo_ids(pad)
    pad.locator(".hit").nth(1).click()
    search_after(pad, lambda: pad.click("#lightbox-like"), has(like=[ids[1]]))
    expect(pad.locator("#lightbox")).to_be_hidden()
    expect(pad.locator(".hit")).to_have_count(23)
    first = photo_ids(pad)[0]
    pad.locator(".hit").first.click()
    search_after(pad, lambda: pad.keyboard.press("-"), has(like=[ids[1]], unlike=[first]))


def test_near_duplicates_are_grouped_and_listed_in_the_lightbox(pad: Page) -> None:
    change_hits(pad, group_last(4, 2))
    pad.click("#open-filters")
    group = pad.get_by_role("switch", name="Group near-duplicates")
    search_after(pad, group.check, has(group=True))
    pad.click("#close-filters")
    expect(pad.locator("#filter-count")).to_have_text("1")
    expect(pad.locator(".count:visible")).to_have_count(1)
    expect(pad.locator(".hit").first).to_have_accessible_name(re.compile(r"\+3 near-duplicates$"))
    ids = photo_ids(pad)
    pad.locator(".hit").first.click()
    expect(pad.locator("#lightbox-duplicates h3")).to_have_text("3 near-duplicates, the first 2")
    thumbnails = pad.locator("#lightbox-duplicates button")
    expect(thumbnails).to_have_count(3)
    expect(thumbnails.first).to_have_attribute("aria-pressed", "true")
    pad.get_by_role("button", name=f"Show {ids[-1]}").click()
    expect(pad.locator("#lightbox-facts")).to_contain_text(ids[-1])
    expect(pad.locator("#lightbox-duplicates [aria-pressed=true]")).to_have_attribute(
        "aria-label", f"Show {ids[-1]}"
    )
    pad.keyboard.press("ArrowRight")
    expect(pad.locator("#lightbox-duplicates")).to_be_hidden()
    pad.keyboard.press("Escape")
    search_after(pad, lambda: pad.get_by_role("button", name="grouped").click(), has(group=None))


def test_real_groups_are_those_of_the_endpoint(pad: Page) -> None:
    pad.click("#open-filters")
    pad.check("#group")
    pad.click("#close-filters")
    expect(pad.locator(".hit")).to_have_count(24 - len(COPY_QUALITIES))
    expect(pad.locator(".count:visible")).to_have_text([f"+{len(COPY_QUALITIES)} near-duplicates"])
    pad.locator("li:has(.count:visible) .hit").click()
    names = pad.locator("#lightbox-duplicates button").evaluate_all(
        "(all) => all.map((each) => each.ariaLabel)"
    )
    copies = [f"Show box/00-{quality}.jpg" for quality in COPY_QUALITIES]
    assert sorted(names) == sorted(["Show box/00.jpg", *copies])


def test_probability_of_a_match_is_beneath_a_hit(pad: Page) -> None:
    expect(pad.locator(".match:visible")).to_have_count(0)  # unknown: this checkpoint has no curve
    expect(pad.locator(".score:visible")).to_have_count(24)
    change_hits(pad, set_match(0.873))
    search_after(pad, lambda: select_category(pad, "disc"))
    expect(pad.locator(".match:visible").first).to_have_text("87 % probability of a match")
    expect(pad.locator(".match:visible").last).to_have_text("<1 % probability of a match")
    expect(pad.locator(".score:visible")).to_have_count(0)
    expect(pad.locator("#message")).to_contain_text("12 results")
    pad.locator(".hit").first.click()
    expect(pad.locator("#lightbox-facts")).to_contain_text("87 %")


@pytest.mark.parametrize(("best", "is_unlikely"), [(0.0999, True), (0.1, False), (None, False)])
def test_a_line_says_that_nothing_is_similar(pad: Page, best: float | None, is_unlikely: bool) -> None:
    change_hits(pad, set_match(best))
    search_after(pad, lambda: select_category(pad, "disc"))
    expect(pad.locator(".hit")).to_have_count(12)
    start = "Nothing similar here: best match 10 %" if is_unlikely else "12 results in"
    expect(pad.locator("#message")).to_contain_text(start)
    expect(pad.locator(".hit img.loaded").last).to_have_css("opacity", "0.4" if is_unlikely else "1")


def steer(page: Page) -> dict[str, Any]:
    """Use everything that an address holds; the body of the last search."""
    search_by_stroke(page, ARC)
    mark(page, 0, "like")
    mark(page, 1, "unlike")
    page.fill("#without", "a box")
    page.keyboard.press("Enter")
    select_category(page, "disc")
    page.click("#open-filters")
    body = search_after(page, lambda: page.check("#group"), has(group=True, category="disc"))
    page.click("#close-filters")
    return body


def test_address_is_the_session(context: BrowserContext, pad: Page) -> None:
    body = steer(pad)
    assert {"sketch", "text", "like", "unlike", "without", "category", "group"} <= body.keys()
    pad.wait_for_timeout(600)  # the address follows after a pause
    for page in (pad, context.new_page()):  # a reload, and a link
        target = pad.url
        restored = search_after(page, lambda page=page, target=target: _open(page, target), has(group=True))
        assert {**restored, "sketch": None} == {**body, "sketch": None}
        assert len(restored["sketch"]) == len(body["sketch"]) == 1
        expect(page.locator("#marks li")).to_have_count(2)
        expect(page.locator("#chips button")).to_have_text(["without a box ×", "disc ×", "grouped ×"])
        expect(page.locator(".hit").first).to_be_visible()


def _open(page: Page, target: str) -> None:
    if page.url == target:
        page.reload()
    else:
        page.goto(target)


def test_address_has_no_query_that_a_link_cannot_hold(pad: Page, sketch: bytes) -> None:
    expect(pad).to_have_url(re.compile("#q1"))
    pad.set_input_files("#file", {"name": "me.png", "mimeType": "image/png", "buffer": sketch})
    expect(pad).to_have_url(re.compile(r"/$"))
    search_after(pad, lambda: pad.click("#remove-image"), has(text="a disc"))
    expect(pad).to_have_url(re.compile("#q1"))
    pad.fill("#text", "")
    expect(pad).to_have_url(re.compile(r"/$"))


def test_link_with_invalid_steering_is_refused(pad: Page) -> None:
    invalid = {"without": ["red", [1], ["x"] * 51], "like": [[""]], "unlike": [["x"] * 201]}
    for name, value in ((name, value) for name, values in invalid.items() for value in values):
        assert_link_is_refused(pad, to_fragment(pad, [LINE], **{name: value}))


def test_mark_of_an_unknown_photo_can_be_removed(pad: Page) -> None:
    with pad.expect_response(lambda response: "gone" in (response.request.post_data or "")) as response:
        open_fragment(pad, to_fragment(pad, [LINE], like=["gone"]))
    assert not response.value.ok
    expect(pad.locator("#message")).to_contain_text("'gone' is not in the gallery")
    search_after(pad, lambda: pad.locator("#marks li button").click(), has(like=None))
    expect(pad.locator(".hit")).to_have_count(24)


def test_phone_has_sketch_marks_and_results_on_one_screen(chromium: Browser, url: str) -> None:
    options = {"has_touch": True, "is_mobile": True, "reduced_motion": "reduce"}
    with chromium.new_context(viewport=PHONE, **options) as context:
        page = open_pad(context, url)
        page.fill("#text", "a disc")
        expect(page.locator(".hit")).to_have_count(24)
        for index, name in enumerate(("like", "unlike")):
            button = page.locator(f"#hits .{name}").nth(index)
            box = button.bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 36
            search_after(page, button.tap, lambda body, name=name: name in body)
            expect(page.locator("#marks li")).to_have_count(index + 1)
        page.fill("#without", "a box")
        search_after(page, lambda: page.keyboard.press("Enter"), has(without=["a box"]))
        expect(page.locator(".hit")).to_have_count(22)
        page.evaluate("scrollTo(0, 0)")
        canvas, frame = (page.locator(name).first.bounding_box() for name in ("#canvas", ".hit .frame"))
        assert canvas is not None
        assert frame is not None
        assert canvas["y"] >= 0
        assert canvas["width"] >= 300
        assert frame["y"] + frame["height"] <= PHONE["height"]
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_axe_reports_no_violations_of_a_steered_answer(
    view: BrowserContext, url: str, find_violations: FindViolations
) -> None:
    page = open_pad(view, url)
    change_hits(page, lambda hits: [change(hits) for change in (set_match(0.01), group_last(3, 2))])
    page.fill("#text", "a disc")
    expect(page.locator(".hit img.loaded")).to_have_count(24)
    mark(page, 0, "like")
    page.fill("#without", "a box")
    search_after(page, lambda: page.keyboard.press("Enter"), has(without=["a box"]))
    expect(page.locator(".hit")).to_have_count(23)
    for target in ("#open-filters", "#close-filters", ".hit >> nth=0"):
        assert find_violations(page) == []
        page.locator(target).click()
    expect(page.locator("#lightbox-duplicates")).to_be_visible()
    assert find_violations(page) == []

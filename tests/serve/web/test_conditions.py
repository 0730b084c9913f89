"""Conditions on columns of the gallery: written, sent, refused, carried by links, reached by keys."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from stbir.images import encode_png, render_strokes
from tests.serve.web.conftest import COLUMNS, LocalSearcher, fact, opened
from tests.serve.web.hand import ARC, LINE, asked, sketched

OWN = ["text", "price", "stock", "used", "since"]


def added(pad: Page) -> Locator:
    """Another condition, as a person adds it."""
    if not pad.locator("#add-condition").is_visible():
        pad.click("#conditions summary")
    pad.click("#add-condition")
    return pad.get_by_role("group", name=f"Condition {pad.locator('#conditions li').count()}")


def written(row: Locator, column: str, op: str, value: str) -> None:
    row.get_by_label("Column").select_option(column)
    row.get_by_label("Comparison").select_option(label=op)
    row.get_by_role("textbox", name="Value").fill(value)


def has(*where: dict[str, Any]) -> Any:
    return lambda body: body.get("where", []) == list(where)


def test_a_condition_narrows_what_is_found(pad: Page, searcher: LocalSearcher) -> None:
    sketched(pad, ARC)
    cheap = {"column": "price", "op": "lt", "value": 3.5}
    row = added(pad)
    asked(pad, lambda: written(row, "price", "less than", "3.5"), has(cheap))
    expect(pad.locator(".hit")).to_have_count(7)  # prices are 0, 0.5, 1, …
    expect(pad.locator("#conditions summary")).to_have_text("Conditions (1)")
    other = added(pad)
    both = (cheap, {"column": "used", "op": "eq", "value": True})
    asked(pad, lambda: other.get_by_label("Column").select_option("used"), has(*both))
    expect(pad.locator(".hit")).to_have_count(2)
    asked(pad, lambda: pad.get_by_role("button", name="Remove condition 1").click(), has(both[1]))
    expect(pad.locator(".hit")).to_have_count(6)
    asked(pad, lambda: pad.get_by_role("button", name="Remove condition 1").click(), has())
    expect(pad.locator(".hit")).to_have_count(12)
    expect(pad.locator("#conditions summary")).to_have_text("Conditions")


@pytest.mark.parametrize(
    ("column", "op", "typed", "sent", "name"),
    [
        ("stock", "at least", "20", 20, "ge"),
        ("stock", "one of", "1, 3,5 ,", [1, 3, 5], "in"),
        ("price", "is not", " -2.50 ", -2.5, "ne"),
        ("text", "is", "words of 07", "words of 07", "eq"),
        ("text", "is", "7", "7", "eq"),
        ("category", "one of", "disc, box", ["disc", "box"], "in"),
        ("since", "before", "2026-01-05", "2026-01-05", "lt"),
        ("since", "from", "2026-01-05T12:30Z", "2026-01-05T12:30Z", "ge"),
    ],
)
def test_values_are_sent_as_the_column_has_them(
    pad: Page, column: str, op: str, typed: str, sent: Any, name: str
) -> None:
    pad.fill("#words", "a disc")
    row = added(pad)
    wanted = {"column": column, "op": name, "value": sent}
    asked(pad, lambda: written(row, column, op, typed), has(wanted))


@pytest.mark.parametrize(
    ("column", "op", "typed", "says"),
    [
        ("stock", "less than", "2.5", "Write a whole number."),
        ("price", "is", "cheap", "Write a number."),
        ("price", "one of", "1, x", "Write a number, or more with commas between."),
        ("since", "from", "2026-13-01", "Write a time as 2026-01-31."),
        ("since", "is", "yesterday", "Write a time as 2026-01-31."),
    ],
)
def test_what_cannot_be_meant_is_said_and_not_sent(
    pad: Page, column: str, op: str, typed: str, says: str
) -> None:
    pad.fill("#words", "a disc")
    row = added(pad)
    written(row, column, op, typed)
    expect(row.locator(".problem")).to_have_text(says)
    value = row.get_by_role("textbox", name="Value")
    expect(value).to_have_attribute("aria-invalid", "true")
    expect(value).to_have_accessible_description(says)
    assert "where" not in asked(pad, lambda: pad.fill("#k", "5"), lambda body: body["k"] == 5)
    value.fill("")
    expect(row.locator(".problem")).to_be_hidden()


def test_columns_of_the_catalogue_come_first_and_digests_not_at_all(pad: Page) -> None:
    names = added(pad).get_by_label("Column").locator("option").all_inner_texts()
    assert names == [*OWN, "category", "photo_id"]
    assert set(names) == COLUMNS.keys() - {"content"}
    expect(pad.get_by_label("Column")).to_be_focused()


def test_comparisons_are_called_as_the_type_has_it(pad: Page) -> None:
    row = added(pad)
    labels = {}
    for column in ("price", "since", "used"):
        row.get_by_label("Column").select_option(column)
        labels[column] = row.get_by_label("Comparison").locator("option").all_inner_texts()
    assert labels["price"] == ["is", "is not", "less than", "at most", "more than", "at least", "one of"]
    assert labels["since"] == ["is", "is not", "before", "up to", "after", "from", "one of"]
    assert labels["used"] == ["is", "is not"]
    expect(row.get_by_role("textbox", name="Value")).to_be_hidden()


def test_conditions_go_with_a_picture(pad: Page, searcher: LocalSearcher) -> None:
    row = added(pad)
    written(row, "stock", "at most", "4")
    picture = encode_png(render_strokes([[(0.1, 0.1), (0.9, 0.9)]]))
    pad.set_input_files("#file", {"name": "me.png", "mimeType": "image/png", "buffer": picture})
    expect(pad.locator(".hit")).to_have_count(sum(fact(place)["stock"] <= 4 for place in range(24)))


def test_a_link_carries_them(context: BrowserContext, pad: Page) -> None:
    pad.fill("#words", "a disc")
    row, other = added(pad), added(pad)
    where = [
        {"column": "text", "op": "in", "value": ["7", "words of 07"]},
        {"column": "used", "op": "ne", "value": True},
    ]
    written(row, "text", "one of", "7, words of 07")
    other.get_by_label("Column").select_option("used")
    asked(pad, lambda: other.get_by_label("Comparison").select_option(label="is not"), has(*where))
    pad.click("#share")
    expect(pad).to_have_url(re.compile("#q1"))
    page = context.new_page()
    body = asked(page, lambda: page.goto(pad.url), lambda body: True)
    assert body["where"] == where  # in the first search, too, when the columns are not yet known
    expect(page.locator("#conditions")).to_have_attribute("open", "")
    expect(page.get_by_role("textbox", name="Value")).to_have_value("7, words of 07")
    expect(page.get_by_label("Comparison").nth(1)).to_have_value("ne")
    expect(page.get_by_role("combobox", name="Value")).to_have_value("true")
    less = [{**where[0], "value": ["8"]}, where[1]]
    asked(page, lambda: page.get_by_role("textbox", name="Value").fill("8"), has(*less))


TO_FRAGMENT = "(json) => import('/web/share.js').then((share) => share.toFragment(JSON.parse(json)))"
GO = "(fragment) => { location.hash = fragment }"


def fragment(pad: Page, where: list[Any]) -> str:
    drawing = {"strokes": [LINE], "picture": None}
    query = {"drawing": drawing, "words": "", "weight": 0.5, "category": "", "k": 12, "width": 2}
    made: str = pad.evaluate(TO_FRAGMENT, json.dumps({**query, "where": where}))
    return made


def test_a_column_of_another_gallery_is_shown_and_the_server_says_so(pad: Page) -> None:
    where = [
        {"column": "price", "op": "lt", "value": 9},
        {"column": "colour", "op": "eq", "value": "red"},
    ]
    link = fragment(pad, where)
    asked(pad, lambda: pad.evaluate(GO, link), has(*where))
    expect(pad.locator("#message")).to_contain_text("Condition 2: there is no 'colour'; there is photo_id")
    expect(pad.get_by_label("Column").nth(1)).to_have_value("colour")
    asked(pad, lambda: pad.get_by_role("button", name="Remove condition 2").click(), has(where[0]))
    expect(pad.locator(".hit")).to_have_count(12)


@pytest.mark.parametrize(
    "forged",
    [
        [{"column": 5, "op": "eq", "value": 1}],
        [{"column": "price", "op": "like", "value": 1}],
        [{"column": "price", "op": "eq", "value": None}],
        [{"column": "price", "op": "eq", "value": {"x": 1}}],
        [{"column": "price", "op": "eq", "value": 1}] * 51,
    ],
)
def test_a_link_with_no_conditions_in_their_place_is_damaged(pad: Page, forged: list[Any]) -> None:
    link = fragment(pad, forged)
    pad.evaluate(GO, link)
    expect(pad.locator("#toast")).to_have_text("This link is damaged: ask for it again.")


def test_a_link_without_conditions_takes_them_away(pad: Page) -> None:
    pad.fill("#words", "a disc")
    row = added(pad)
    asked(pad, lambda: written(row, "price", "less than", "2"), lambda body: "where" in body)
    link = fragment(pad, [])
    asked(pad, lambda: pad.evaluate(GO, link), lambda body: "where" not in body and "sketch" in body)
    expect(pad.locator("#conditions li")).to_have_count(0)


def test_by_keyboard_alone(pad: Page) -> None:
    pad.fill("#words", "a disc")
    pad.locator("#width").focus()
    pad.keyboard.press("Tab")
    expect(pad.locator("#conditions summary")).to_be_focused()
    pad.keyboard.press("Enter")
    pad.keyboard.press("Tab")
    pad.keyboard.press("Enter")  # Add
    expect(pad.get_by_label("Column")).to_be_focused()
    pad.keyboard.type("pri")
    pad.keyboard.press("Tab")
    pad.keyboard.type("less")
    pad.keyboard.press("Tab")
    wanted = {"column": "price", "op": "lt", "value": 2}
    asked(pad, lambda: pad.keyboard.type("2"), has(wanted))
    pad.keyboard.press("Tab")
    expect(pad.get_by_role("button", name="Remove condition 1")).to_be_focused()
    asked(pad, lambda: pad.keyboard.press("Enter"), has())
    expect(pad.locator("#add-condition")).to_be_focused()


def test_letters_typed_there_are_no_shortcuts(pad: Page) -> None:
    row = added(pad)
    row.get_by_role("textbox", name="Value").press_sequentially("beer")
    expect(pad.locator("#pen")).to_have_attribute("aria-pressed", "true")


def test_no_photo_meets_them(pad: Page) -> None:
    pad.fill("#words", "a disc")
    written(added(pad), "price", "more than", "1e6")
    expect(pad.locator("#message")).to_contain_text("fewer conditions")


def test_a_server_that_names_no_columns_is_offered_none(context: BrowserContext, pad: Page) -> None:
    def older(route: Route) -> None:
        told = route.fetch().json()
        del told["gallery"]["columns"]
        route.fulfill(json=told)

    context.route("**/v1/info", older)
    page = opened(context, pad.url)
    expect(page.locator("#conditions")).to_be_hidden()

"""Filters on gallery columns: controls, values, errors, shared links and keyboard use."""

import itertools
import json
import re
from functools import partial
from typing import Any, get_args

from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from serve.http.page import WEB
from stbir.gallery.filters import OPS, ColumnType
from stbir.images import encode_png, render_strokes
from tests.serve.web.actions import (
    ARC,
    LINE,
    assert_link_is_refused,
    open_fragment,
    search_after,
    search_by_stroke,
    to_fragment,
)
from tests.serve.web.conftest import SCHEMA, metadata, open_pad


def add_filter(pad: Page) -> Locator:
    if not pad.locator("#filters").is_visible():
        pad.click("#open-filters")
    pad.click("#add-filter")
    return pad.get_by_role("group", name=f"Condition {pad.locator('#conditions li').count()}")


def fill_filter(row: Locator, column: str, op: str, value: str) -> None:
    row.get_by_label("Column").select_option(column)
    row.get_by_label("Operator").select_option(label=op)
    row.get_by_role("textbox", name="Value").fill(value)


def has_filters(*where: dict[str, Any]) -> Any:
    return lambda body: body.get("where", []) == list(where)


def test_operators_are_those_of_the_server() -> None:
    source = (WEB / "filter_schema.js").read_text()
    symbols, boolean = (
        re.search(r"OPERATORS = (\{.*\});", source),
        re.search(r"BOOLEAN_OPERATORS = (.*);", source),
    )
    assert symbols is not None
    assert boolean is not None
    assert list(json.loads(symbols[1])) == list(OPS)
    accepted = {name: [op for op in OPS if name in OPS[op].types] for name in get_args(ColumnType)}
    accepted["boolean"].remove("in")  # not useful for two values
    assert accepted.pop("boolean") == json.loads(boolean[1])
    assert all(operators == list(OPS) for operators in accepted.values())


def test_filters_restrict_the_results(pad: Page) -> None:
    search_by_stroke(pad, ARC)
    cheap = {"column": "price", "op": "lt", "value": 3.5}
    row = add_filter(pad)
    search_after(pad, lambda: fill_filter(row, "price", "<", "3.5"), has_filters(cheap))
    expect(pad.locator(".hit")).to_have_count(7)  # prices are 0, 0.5, 1, …
    expect(pad.locator("#chips")).to_have_text("price < 3.5 ×")
    expect(pad.locator("#filter-count")).to_have_text("1")
    row = add_filter(pad)
    used = {"column": "used", "op": "eq", "value": True}
    search_after(pad, lambda: row.get_by_label("Column").select_option("used"), has_filters(cheap, used))
    expect(pad.locator(".hit")).to_have_count(2)
    remove = pad.get_by_role("button", name="Remove condition 1")
    search_after(pad, remove.click, has_filters(used))
    expect(pad.locator(".hit")).to_have_count(6)
    search_after(pad, remove.click, has_filters())
    expect(pad.locator(".hit")).to_have_count(24)
    expect(pad.locator("#filter-count")).to_have_text("")


def test_filters_are_removed_by_their_chips(pad: Page) -> None:
    search_by_stroke(pad, ARC)
    cheap = {"column": "price", "op": "lt", "value": 3.5}
    fill_filter(add_filter(pad), "price", "<", "3.5")
    pad.select_option("#category", "disc")
    pad.keyboard.press("Escape")
    expect(pad.locator("#filters")).to_be_hidden()
    expect(pad.locator("#chips button")).to_have_text(["disc ×", "price < 3.5 ×"])
    remove = pad.get_by_role("button", name="Remove filter disc")
    assert "category" not in search_after(pad, remove.click, has_filters(cheap))
    search_after(pad, pad.get_by_role("button", name="Remove filter price < 3.5").click, has_filters())
    expect(pad.locator("#chips button")).to_have_count(0)
    expect(pad.locator(".hit")).to_have_count(24)


def test_drawer_leaves_the_canvas_as_it_is(pad: Page) -> None:
    side = pad.locator("#canvas").bounding_box()
    assert side is not None
    assert side["width"] >= 480
    for _ in range(3):
        add_filter(pad)
    assert pad.locator("#canvas").bounding_box() == side
    pad.click("#close-filters")
    expect(pad.locator("#filters")).to_be_hidden()


def test_value_has_the_type_of_the_column(pad: Page) -> None:
    pad.fill("#text", "a disc")
    row = add_filter(pad)
    for column, label, text, value, op in (
        ("stock", "≥", "20", 20, "ge"),
        ("stock", "in", "1, 3,5 ,", [1, 3, 5], "in"),
        ("price", "≠", " -2.50 ", -2.5, "ne"),
        ("text", "=", "red wood", "red wood", "eq"),
        ("text", "=", "7", "7", "eq"),
        ("category", "in", "disc, box", ["disc", "box"], "in"),
        ("since", "<", "2026-01-05", "2026-01-05", "lt"),
        ("since", "≥", "2026-01-05T12:30Z", "2026-01-05T12:30Z", "ge"),
    ):
        expected = {"column": column, "op": op, "value": value}
        search_after(pad, partial(fill_filter, row, column, label, text), has_filters(expected))


def test_invalid_value_shows_an_error_and_is_not_sent(pad: Page) -> None:
    pad.fill("#text", "a disc")
    row, categories = add_filter(pad), itertools.cycle(("disc", "box"))
    for column, label, text, message in (
        ("stock", "<", "2.5", "Enter a whole number."),
        ("price", "=", "cheap", "Enter a number."),
        ("price", "in", "1, x", "Enter a number, or several separated by commas."),
        ("since", "≥", "2026-13-01", "Enter a time such as 2026-01-31."),
        ("since", "=", "yesterday", "Enter a time such as 2026-01-31."),
    ):
        fill_filter(row, column, label, text)
        expect(row.locator(".error")).to_have_text(message)
        value = row.get_by_role("textbox", name="Value")
        expect(value).to_have_attribute("aria-invalid", "true")
        expect(value).to_have_accessible_description(message)
        select = partial(pad.select_option, "#category", category := next(categories))
        search = search_after(pad, select, lambda body, name=category: body.get("category") == name)
        assert "where" not in search
        value.fill("")
        expect(row.locator(".error")).to_be_hidden()


def test_catalogue_columns_are_listed_before_standard_columns(pad: Page) -> None:
    names = add_filter(pad).get_by_label("Column").locator("option").all_inner_texts()
    assert names == ["text", "price", "stock", "used", "since", "category", "photo_id"]
    assert set(names) == set(SCHEMA.names) - {"content"}
    expect(pad.get_by_label("Column")).to_be_focused()


def test_operator_labels_depend_on_the_type(pad: Page) -> None:
    row = add_filter(pad)
    labels = {}
    for column in ("price", "since", "used"):
        row.get_by_label("Column").select_option(column)
        labels[column] = row.get_by_label("Operator").locator("option").all_inner_texts()
    assert labels["price"] == labels["since"] == ["=", "≠", "<", "≤", ">", "≥", "in"]
    assert labels["used"] == ["=", "≠"]
    expect(row.get_by_role("textbox", name="Value")).to_be_hidden()


def test_filters_apply_to_an_image_query(pad: Page) -> None:
    row = add_filter(pad)
    fill_filter(row, "stock", "≤", "4")
    image = encode_png(render_strokes([[(0.1, 0.1), (0.9, 0.9)]]))
    pad.set_input_files("#file", {"name": "me.png", "mimeType": "image/png", "buffer": image})
    expect(pad.locator(".hit")).to_have_count(sum(metadata(index)["stock"] <= 4 for index in range(24)))


def test_link_restores_filters(context: BrowserContext, pad: Page) -> None:
    pad.fill("#text", "a disc")
    text_row, used_row = add_filter(pad), add_filter(pad)
    where: list[dict[str, Any]] = [
        {"column": "text", "op": "in", "value": ["7", "red wood"]},
        {"column": "used", "op": "ne", "value": True},
    ]
    fill_filter(text_row, "text", "in", "7, red wood")
    used_row.get_by_label("Column").select_option("used")
    operator = used_row.get_by_label("Operator")
    search_after(pad, lambda: operator.select_option(label="≠"), has_filters(*where))
    pad.click("#close-filters")
    pad.click("#share")
    expect(pad.locator("#toast")).not_to_be_empty()
    page = context.new_page()
    body = search_after(page, lambda: page.goto(pad.url))
    assert body["where"] == where  # also in a search before /v1/info returns the columns
    expect(page.locator("#chips button")).to_have_text(["text in 7, red wood ×", "used ≠ true ×"])
    page.click("#open-filters")
    expect(page.get_by_role("textbox", name="Value")).to_have_value("7, red wood")
    expect(page.get_by_label("Operator").nth(1)).to_have_value("ne")
    expect(page.get_by_role("combobox", name="Value")).to_have_value("true")
    edited = [{**where[0], "value": ["8"]}, where[1]]
    search_after(page, lambda: page.get_by_role("textbox", name="Value").fill("8"), has_filters(*edited))


def test_unknown_column_is_sent_and_gives_a_server_error(pad: Page) -> None:
    price: dict[str, Any] = {"column": "price", "op": "lt", "value": 9}
    where = [price, {"column": "colour", "op": "eq", "value": "red"}]
    fragment = to_fragment(pad, [LINE], where=where)
    search_after(pad, lambda: open_fragment(pad, fragment), has_filters(*where))
    expect(pad.locator("#message")).to_contain_text("Condition 2: no column 'colour'; available: photo_id")
    pad.click("#open-filters")
    expect(pad.get_by_label("Column").nth(1)).to_have_value("colour")
    remove = pad.get_by_role("button", name="Remove condition 2")
    search_after(pad, remove.click, has_filters(price))
    expect(pad.locator(".hit")).to_have_count(18)


def test_link_with_invalid_filters_is_refused(pad: Page) -> None:
    for column, op, value, count in (
        (5, "eq", 1, 1),
        ("price", "like", 1, 1),
        ("price", "eq", None, 1),
        ("price", "eq", {"x": 1}, 1),
        ("price", "eq", 1, 51),
    ):
        where = [{"column": column, "op": op, "value": value}] * count
        assert_link_is_refused(pad, to_fragment(pad, [LINE], where=where))


def test_link_without_filters_removes_them(pad: Page) -> None:
    pad.fill("#text", "a disc")
    row = add_filter(pad)
    search_after(pad, lambda: fill_filter(row, "price", "<", "2"), lambda body: "where" in body)
    fragment = to_fragment(pad, [LINE], where=[])
    body = search_after(pad, lambda: open_fragment(pad, fragment), lambda body: "sketch" in body)
    assert "where" not in body
    expect(pad.locator("#conditions li")).to_have_count(0)


def test_filter_can_be_added_by_keyboard(pad: Page) -> None:
    pad.fill("#text", "a disc")
    pad.locator("#without").focus()
    pad.keyboard.press("Tab")
    expect(pad.locator("#open-filters")).to_be_focused()
    pad.keyboard.press("Enter")
    for _ in range(3):  # from the close button
        pad.keyboard.press("Tab")
    pad.keyboard.press("Enter")  # Add a condition
    expect(pad.get_by_label("Column")).to_be_focused()
    pad.keyboard.type("pri")
    pad.keyboard.press("Tab")
    pad.keyboard.type("<")
    pad.keyboard.press("Tab")
    expected = {"column": "price", "op": "lt", "value": 2}
    search_after(pad, lambda: pad.keyboard.type("2"), has_filters(expected))
    pad.keyboard.press("Tab")
    expect(pad.get_by_role("button", name="Remove condition 1")).to_be_focused()
    search_after(pad, lambda: pad.keyboard.press("Enter"), has_filters())
    expect(pad.locator("#add-filter")).to_be_focused()


def test_letters_in_a_value_are_no_shortcuts(pad: Page) -> None:
    row = add_filter(pad)
    row.get_by_role("textbox", name="Value").press_sequentially("beer")
    expect(pad.locator("#pen")).to_have_attribute("aria-pressed", "true")


def test_message_without_matching_photos(pad: Page) -> None:
    pad.fill("#text", "a disc")
    fill_filter(add_filter(pad), "price", ">", "1e6")
    expect(pad.locator("#message")).to_contain_text("fewer filters")


def test_filters_are_hidden_without_columns(context: BrowserContext, pad: Page) -> None:
    def remove_columns(route: Route) -> None:
        info = route.fetch().json()
        del info["gallery"]["columns"]
        route.fulfill(json=info)

    context.route("**/v1/info", remove_columns)
    page = open_pad(context, pad.url)
    page.click("#open-filters")
    expect(page.locator("#category")).to_be_visible()
    expect(page.locator("#conditions")).to_be_hidden()

"""Captions: parsing of answers, caption text, answer store, estimate, agreement and review sheet."""

import base64
import io
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stbir.captioning.agreement import measure_agreement
from stbir.captioning.answer import InvalidAnswer, parse_answer
from stbir.captioning.answer_store import AnswerRecord, AnswerStore, Usage, content_key
from stbir.captioning.caption import Caption, caption_schema
from stbir.captioning.estimate import Estimate, Price, estimate, format_duration
from stbir.captioning.prompt import chat_messages, load_prompt
from stbir.captioning.prompt_image import encode_data_uri, resized_size
from stbir.captioning.sheet import Sheet, SheetEntry, css_colour
from stbir.errors import InputError
from stbir.storage.folder import Folder
from tests.data.image_files import png

GOOD = {"item": "ankle boot", "colours": ["black"], "materials": ["leather"], "details": ["gold buckle"]}


def answer(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (answer(), "black leather ankle boot, gold buckle"),
        (f"```json\n{answer()}\n```", "black leather ankle boot, gold buckle"),
        (f"<think>A boot?</think>\n{answer()}", "black leather ankle boot, gold buckle"),
        (answer(colours=["Dark Grey", "white"]), "dark gray and white leather ankle boot, gold buckle"),
        (answer(materials=[]), "black ankle boot, gold buckle"),
        (answer(item="leather boot"), "black leather boot, gold buckle"),
        (answer(details=["Block heel.", "buckle"]), "black leather ankle boot, block heel, buckle"),
        (answer(details=["buckle", "buckle", "leather"]), "black leather ankle boot, buckle"),
        (
            answer(details=["red heel", "black sole", "red sole"]),
            "black leather ankle boot, red heel, black sole, red sole",
        ),
    ],
)
def test_a_valid_answer_has_the_form_of_the_data_sets(text: str, expected: str) -> None:
    caption = parse_answer(text, 12)
    assert isinstance(caption, Caption), caption
    assert caption.text == expected


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "empty answer", "nothing"),
        ("A black boot.", "not JSON", "A black boot."),
        (answer()[:50], "not JSON", "EOF"),
        ("[]", "not of the schema", "the object: "),
        (answer(colours=[]), "not of the schema", "colours: List should have at least 1"),
        (answer(details=[" "]), "not of the schema", "details: List should have at least 1"),
        (answer(colours="black"), "not of the schema", "colours: "),
        (answer(brand="x"), "not of the schema", "brand: "),
        (answer(item="短靴"), "not plain words", "短靴"),
        (answer(details=["gold, shiny buckle"]), "not plain words", "gold, shiny buckle"),
        (answer(item=""), "not plain words", "''"),
        (answer(details=["one two three four five six"]), "not plain words", "1 to 5|one to 5"),
        (answer(details=["on a white floor"]), "background", "white floor"),
        (answer(details=["soft shadow"]), "background", "shadow"),
        (answer(details=["one two three four", "five six seven"]), "too many words", "11 words, at most 10"),
    ],
)
def test_an_invalid_answer_has_a_reason(text: str, reason: str, detail: str) -> None:
    invalid = parse_answer(text, 10)
    assert isinstance(invalid, InvalidAnswer), invalid
    assert invalid.reason == reason
    assert any(part in invalid.detail for part in detail.split("|"))


def test_only_the_last_answer_of_a_record_is_parsed() -> None:
    assert AnswerRecord(("nonsense", answer())).parse_last(10) == parse_answer(answer(), 10)
    assert AnswerRecord().parse_last(10) is None


def test_floor_and_wall_are_allowed_in_the_name_of_an_object() -> None:
    assert isinstance(parse_answer(answer(item="floor lamp", details=["wall mounted"]), 10), Caption)


VALIDATOR = jsonschema.Draft202012Validator(caption_schema())
WORD = st.sampled_from(["black", "leather", "gold", "curved", "boot", "light gray", "trim"])
CAPTIONS = st.builds(
    Caption,
    item=WORD,
    colours=st.lists(WORD, min_size=1, max_size=2),
    materials=st.lists(WORD, max_size=2),
    details=st.lists(WORD, min_size=1, max_size=3),
)


@given(CAPTIONS)
def test_the_schema_and_the_parser_accept_the_same_answers(caption: Caption) -> None:
    fields = json.loads(json.dumps(vars(caption)))
    assert VALIDATOR.is_valid(fields)
    assert parse_answer(json.dumps(fields), 50) == caption
    for change in ({"colours": []}, {"brand": "x"}, {"item": 3}, {"details": ["a"] * 4}):
        assert not VALIDATOR.is_valid({**fields, **change})
        assert isinstance(parse_answer(json.dumps({**fields, **change}), 50), InvalidAnswer)


@given(CAPTIONS)
def test_a_caption_contains_its_item_and_agrees_with_itself(caption: Caption) -> None:
    assert caption.item in caption.text
    for result in measure_agreement([(caption.text, caption.text)]).values():
        percentages = {result["agree"], result["recall"], result["precision"]}
        assert percentages in ({100}, {None})


def test_agreement_equals_a_count_by_hand() -> None:
    pairs = [
        ("navy and cream leather sneakers, gum sole", "blue canvas sneaker, white laces"),  # same colours
        ("red wooden chair", "burgundy oak armchair"),  # another item
        ("tan fabric, curved back", "gray cotton sofa"),  # no item, another colour
        ("round, flat", "round, flat"),  # neither colour nor material
    ]
    result = measure_agreement(pairs)
    assert result["colour"] == {"photos": 3, "agree": 66.7, "recall": 75.0, "precision": 75.0}
    # leather, rubber | wood | fabric against canvas | wood | fabric
    assert result["material"] == {"photos": 3, "agree": 66.7, "recall": 50.0, "precision": 66.7}
    assert result["item"] == {"photos": 3, "agree": 66.7, "recall": 66.7, "precision": 66.7}
    assert measure_agreement([])["item"] == {"photos": 0, "agree": None, "recall": None, "precision": None}


def test_the_prompt_version_covers_all_parts_of_the_request(tmp_path: Path) -> None:
    default = load_prompt()
    (tmp_path / "v1.txt").write_text(default.text + " Please.")
    others = [load_prompt(max_word_count=9), load_prompt(max_side=448), load_prompt(str(tmp_path / "v1.txt"))]
    assert load_prompt() == default
    assert len({prompt.version for prompt in (default, *others)}) == 4
    assert all(prompt.version.startswith("v1-") for prompt in others)
    assert "at most 10 words" in default.text


def test_the_instructions_precede_the_image() -> None:
    system, user = chat_messages(load_prompt(), "data:x")
    assert (system["role"], system["content"]) == ("system", load_prompt().text)
    assert user["content"][0] == {"type": "image_url", "image_url": {"url": "data:x"}}


def test_answers_are_stored_by_photo_model_and_prompt(tmp_path: Path) -> None:
    folder, record = Folder(str(tmp_path)), AnswerRecord(("{}", answer()), Usage(2, 10, 3, 0.5))
    store = AnswerStore(folder, "org/model", load_prompt())
    assert store.get(content_key(b"a")) == AnswerRecord()
    store.put(content_key(b"a"), record)
    assert AnswerStore(folder, "org/model", load_prompt()).get(content_key(b"a")) == record
    others = [("org/model", load_prompt(max_word_count=9)), ("org-model", load_prompt())]
    assert all(AnswerStore(folder, *other).get(content_key(b"a")) == AnswerRecord() for other in others)
    assert store.get(content_key(b"b")) == AnswerRecord()
    [file] = tmp_path.rglob("*.json")
    future = json.loads(file.read_text())
    future["usage"]["cached_tokens"] = 7  # a field of a later version
    file.write_text(json.dumps({**future, "latency_s": 1.5}))
    assert store.get(content_key(b"a")) == record
    file.write_text("{")
    with pytest.raises(InputError, match=f"{file.name}: damaged .*; remove it"):
        store.get(content_key(b"a"))


@pytest.mark.parametrize(
    ("size", "expected"), [((800, 400), (512, 256)), ((30, 20), (30, 20)), ((3, 4000), (1, 512))]
)
def test_an_image_in_a_request_has_a_limited_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    head, _, data = encode_data_uri(png(200, size), 512).partition(",")
    assert head == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == expected == resized_size(png(200, size), 512)


def test_an_image_that_does_not_decode() -> None:
    assert resized_size(b"?", 512) == (0, 0)
    with pytest.raises(InputError, match="photo: not a readable image"):
        encode_data_uri(b"?", 512)


def test_an_estimate_by_rule_of_thumb_and_from_measured_usage() -> None:
    prompt = load_prompt()
    rule_of_thumb = estimate([(280, 140), (29, 28)], prompt, Usage(), concurrency=2, price=Price())
    assert rule_of_thumb.tokens_in == 50 + 2 + 2 * (len(prompt.text) // 4)
    assert (rule_of_thumb.calls, rule_of_thumb.cost, rule_of_thumb.measured) == (2, None, 0)
    measured = estimate([(1, 1)] * 10, prompt, Usage(4, 400, 80, 8.0), concurrency=4, price=Price(1.0, 10.0))
    assert measured == Estimate(10, 1000, 200, 6.0, 0.003, 4)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (5, "5 seconds"),
        (150, "2.5 minutes"),
        (5200, "87 minutes"),
        (9000, "2.5 hours"),
        (216_000, "2.5 days"),
    ],
)
def test_format_duration(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected


@pytest.mark.parametrize(
    ("colour", "css"),
    [
        ("navy", "navy"),
        ("burgundy", "red"),
        ("light gray", "color-mix(in srgb, gray 55%, white)"),
        ("dark wood brown", "color-mix(in srgb, saddlebrown 55%, black)"),
        ("transparent", "transparent"),
        ("red;} body{display:none", "transparent"),
    ],
)
def test_css_colour(colour: str, css: str) -> None:
    assert css_colour(colour) == css


def test_a_sheet_shows_all_fields_and_escapes_them() -> None:
    caption = Caption("lamp", ["red"], [], ["<b>shade</b>"])
    entries = [
        SheetEntry("p1", None, caption, "red lamp, <i>tall</i>"),
        SheetEntry("p2", None, None, None, "not JSON: <x>", 2),
    ]
    sheet = Sheet("m", "v1-0", "shards", entries, Estimate(3, 30, 6, 120, 1.5, 2), 0.01)
    page = sheet.html()
    assert "<b>shade" not in page
    assert "<i>tall" not in page
    assert "<x>" not in page
    for text in ("red lamp, &lt;b&gt;shade", "2.0 minutes", "1.50", "two answers", "100.0 %"):
        assert text in page
    summary = sheet.as_dict()
    assert summary["agreement"]["colour"]["agree"] == 100
    assert summary["captions"][1] == {
        "photo_id": "p2",
        "text": None,
        "caption": None,
        "given": None,
        "fault": "not JSON: <x>",
    }

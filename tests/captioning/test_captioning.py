"""Captions by a model: what an answer must be, how it reads, what is kept, and how agreement is counted."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stbir.captioning.agreement import agreement
from stbir.captioning.answer import Unusable, judge
from stbir.captioning.answer_store import Answers, Asked, Usage, key_of
from stbir.captioning.caption import Caption, schema
from stbir.captioning.estimate import Estimate, Price, estimate, lasting
from stbir.captioning.prompt import load_prompt, messages
from stbir.captioning.prompt_image import sent, size_sent
from stbir.captioning.sheet import Sheet, Shown, swatch
from stbir.errors import InputError
from stbir.storage.folder import Folder
from tests.data.pictures import png

GOOD = {"item": "ankle boot", "colours": ["black"], "materials": ["leather"], "details": ["gold buckle"]}


def answer(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


@pytest.mark.parametrize(
    ("text", "reads"),
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
def test_a_good_answer_reads_as_the_data_sets_do(text: str, reads: str) -> None:
    caption = judge([text], 12)
    assert isinstance(caption, Caption), caption
    assert caption.text == reads


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
def test_a_bad_answer_has_its_reason(text: str, reason: str, detail: str) -> None:
    found = judge([text], 10)
    assert isinstance(found, Unusable), found
    assert found.reason == reason
    assert any(part in found.detail for part in detail.split("|"))


def test_the_last_answer_counts() -> None:
    assert judge(["nonsense", answer()], 10) == judge([answer()], 10)


def test_an_object_for_floors_may_have_its_name() -> None:
    assert isinstance(judge([answer(item="floor lamp", details=["wall mounted"])], 10), Caption)


VALID = jsonschema.Draft202012Validator(schema())
WORD = st.sampled_from(["black", "leather", "gold", "curved", "boot", "light gray", "trim"])
CAPTIONS = st.builds(
    Caption,
    item=WORD,
    colours=st.lists(WORD, min_size=1, max_size=2),
    materials=st.lists(WORD, max_size=2),
    details=st.lists(WORD, min_size=1, max_size=3),
)


@given(CAPTIONS)
def test_what_the_schema_allows_is_what_is_read_and_the_other_way_round(caption: Caption) -> None:
    fields = json.loads(json.dumps(vars(caption)))
    assert VALID.is_valid(fields)
    assert judge([json.dumps(fields)], 50) == caption
    for wrong in ({"colours": []}, {"brand": "x"}, {"item": 3}, {"details": ["a"] * 4}):
        assert not VALID.is_valid({**fields, **wrong})
        assert isinstance(judge([json.dumps({**fields, **wrong})], 50), Unusable)


@given(CAPTIONS)
def test_a_caption_says_its_item_and_agrees_with_itself(caption: Caption) -> None:
    assert caption.item in caption.text
    for named in agreement([(caption.text, caption.text)]).values():
        assert (named["agree"], named["recall"], named["precision"]) in ((100, 100, 100), (None, None, None))


def test_agreement_counted_by_hand() -> None:
    pairs = [
        ("navy and cream leather sneakers, gum sole", "blue canvas sneaker, white laces"),  # both colours
        ("red wooden chair", "burgundy oak armchair"),  # another item
        ("tan fabric, curved back", "gray cotton sofa"),  # names no item, another colour
        ("round, flat", "round, flat"),  # neither colour nor material
    ]
    found = agreement(pairs)
    assert found["colour"] == {"photos": 3, "agree": 66.7, "recall": 75.0, "precision": 75.0}
    # leather, rubber | wood | fabric against canvas | wood | fabric
    assert found["material"] == {"photos": 3, "agree": 66.7, "recall": 50.0, "precision": 66.7}
    assert found["item"] == {"photos": 3, "agree": 66.7, "recall": 66.7, "precision": 66.7}
    assert agreement([])["item"] == {"photos": 0, "agree": None, "recall": None, "precision": None}


def test_every_part_of_the_question_is_in_its_version(tmp_path: Path) -> None:
    plain = load_prompt()
    (tmp_path / "v1.txt").write_text(plain.text + " Please.")
    others = [load_prompt(words=9), load_prompt(pixels=448), load_prompt(str(tmp_path / "v1.txt"))]
    assert load_prompt() == plain
    assert len({each.version for each in (plain, *others)}) == 4
    assert all(each.version.startswith("v1-") for each in others)
    assert "at most 10 words" in plain.text


def test_instructions_come_before_the_picture() -> None:
    system, user = messages(load_prompt(), "data:x")
    assert (system["role"], system["content"]) == ("system", load_prompt().text)
    assert user["content"][0] == {"type": "image_url", "image_url": {"url": "data:x"}}


def test_answers_are_kept_by_picture_model_and_prompt(tmp_path: Path) -> None:
    folder, asked = Folder(str(tmp_path)), Asked(("{}", answer()), Usage(2, 10, 3, 0.5))
    kept = Answers(folder, "org/model", load_prompt())
    assert kept.get(key_of(b"a")) == Asked()
    kept.put(key_of(b"a"), asked)
    assert Answers(folder, "org/model", load_prompt()).get(key_of(b"a")) == asked
    others = [("org/model", load_prompt(words=9)), ("org-model", load_prompt())]
    assert all(Answers(folder, *other).get(key_of(b"a")) == Asked() for other in others)
    assert kept.get(key_of(b"b")) == Asked()
    [file] = tmp_path.rglob("*.json")
    file.write_text("{")
    with pytest.raises(InputError, match=f"{file.name}: damaged .*; remove it"):
        kept.get(key_of(b"a"))


@pytest.mark.parametrize(
    ("size", "becomes"), [((800, 400), (512, 256)), ((30, 20), (30, 20)), ((3, 4000), (1, 512))]
)
def test_what_is_sent_is_no_larger_than_asked(size: tuple[int, int], becomes: tuple[int, int]) -> None:
    import base64
    import io

    head, _, data = sent(png(200, size), 512).partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == becomes == size_sent(png(200, size), 512)


def test_what_is_no_picture(tmp_path: Path) -> None:
    assert size_sent(b"?", 512) == (0, 0)
    with pytest.raises(InputError, match="photo: not a readable picture"):
        sent(b"?", 512)


def test_an_estimate_by_rule_of_thumb_and_one_measured() -> None:
    prompt = load_prompt()
    thumb = estimate([(280, 140), (29, 28)], prompt, Usage(), at_once=2, price=Price())
    assert thumb.tokens_in == 50 + 2 + 2 * (len(prompt.text) // 4)
    assert (thumb.calls, thumb.cost, thumb.measured) == (2, None, 0)
    measured = estimate([(1, 1)] * 10, prompt, Usage(4, 400, 80, 8.0), at_once=4, price=Price(1.0, 10.0))
    assert measured == Estimate(10, 1000, 200, 6.0, 0.003, 4)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (5, "5 seconds"),
        (150, "2.5 minutes"),
        (5200, "87 minutes"),
        (9000, "2.5 hours"),
        (216_000, "2.5 days"),
    ],
)
def test_times_are_said_as_people_do(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


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
def test_swatches(colour: str, css: str) -> None:
    assert swatch(colour) == css


def test_a_sheet_says_all_and_trusts_nothing() -> None:
    caption = Caption("lamp", ["red"], [], ["<b>shade</b>"])
    shown = [
        Shown("p1", None, caption, "red lamp, <i>tall</i>"),
        Shown("p2", None, None, None, "not JSON: <x>", 2),
    ]
    sheet = Sheet("m", "v1-0", "shards", shown, Estimate(3, 30, 6, 120, 1.5, 2), 0.01)
    page = sheet.html()
    assert "<b>shade" not in page
    assert "<i>tall" not in page
    assert "<x>" not in page
    for said in ("red lamp, &lt;b&gt;shade", "2.0 minutes", "1.50", "asked twice", "100.0 %"):
        assert said in page
    plain = sheet.as_dict()
    assert plain["agreement"]["colour"]["agree"] == 100
    assert plain["captions"][1] == {
        "photo_id": "p2",
        "text": None,
        "caption": None,
        "given": None,
        "fault": "not JSON: <x>",
    }

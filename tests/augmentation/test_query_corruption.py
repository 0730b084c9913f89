import io
import re

import numpy as np
import pytest
from PIL import Image

from stbir.augmentation.query_corruption import (
    LEVELS,
    MOST_SIDE,
    SKETCH_DISTORTIONS,
    TEXT_DISTORTIONS,
    distort_encoded,
    distort_sketch,
    distort_text,
    distorted,
)
from stbir.augmentation.sketch_corruption import _components, _sampled
from stbir.data.schema import Row
from stbir.errors import InputError
from stbir.images import Pixels, encode_png, open_picture, render_strokes

CHAIR = np.array(
    render_strokes(
        [
            [(0.3, 0.1), (0.7, 0.1), (0.7, 0.5), (0.3, 0.5), (0.3, 0.1)],
            [(0.35, 0.2), (0.65, 0.2)],
            [(0.35, 0.3), (0.65, 0.3)],
            *([(x, 0.55), (x, 0.9)] for x in (0.3, 0.5, 0.7)),
        ],
        size=128,
    )
)
CAPTION = "brown suede boot, yellow laces, gray logo"
DISTORTED = tuple(severity for severity in LEVELS.values() if severity)


def dice(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def row(name: str = "a", sketches: int = 2, text: str | None = CAPTION) -> Row:
    pictures = [encode_png(Image.fromarray(CHAIR))] * sketches
    return {
        **{"photo_id": name, "category": "chair", "split": "test", "photo": b"", "sketch_count": sketches},
        **{"sketches": pictures, "text": text},
    }


def ink(pixels: Pixels) -> np.ndarray:
    return pixels < 128


@pytest.mark.parametrize("kind", SKETCH_DISTORTIONS)
def test_a_sketch_at_severity_0_is_itself_and_at_1_another(kind):
    clean = CHAIR.copy()
    assert (distort_sketch(CHAIR, 0.0, dice(), kind) == clean).all()
    assert (distort_sketch(CHAIR, 1.0, dice(), kind) != clean).any()
    assert (clean == CHAIR).all()  # what was given stays


@pytest.mark.parametrize("kind", TEXT_DISTORTIONS)
def test_a_caption_at_severity_0_is_itself_and_at_1_another(kind):
    assert distort_text(CAPTION, 0.0, dice(), kind) == CAPTION
    assert distort_text(CAPTION, 1.0, dice(), kind) != CAPTION


def test_an_encoded_sketch_at_severity_0_keeps_its_bytes():
    jpeg = io.BytesIO()
    Image.fromarray(CHAIR).save(jpeg, "JPEG")
    assert distort_encoded(jpeg.getvalue(), 0.0, dice()) == jpeg.getvalue()


@pytest.mark.parametrize("kind", SKETCH_DISTORTIONS)
@pytest.mark.parametrize("severity", DISTORTED)
def test_the_seed_decides_and_the_form_is_kept(kind, severity):
    first, again = (distort_sketch(CHAIR, severity, dice(3), kind) for _ in range(2))
    assert (first == again).all()
    assert (first.shape, first.dtype) == (CHAIR.shape, np.uint8)
    assert (distort_sketch(CHAIR[None], severity, dice(3), kind) == first[None]).all()
    assert (distort_sketch(CHAIR, severity, dice(4), kind) != first).any() or kind == "wrong aspect"
    encoded = distort_encoded(encode_png(Image.fromarray(CHAIR)), severity, dice(3), kind)
    assert (np.array(Image.open(io.BytesIO(encoded))) == first).all()


@pytest.mark.parametrize(("kind", "most"), [("dropped strokes", 0.7), ("partial", 0.65)])
@pytest.mark.parametrize("seed", range(5))
def test_ink_goes_in_proportion_and_what_is_gone_stays_gone(kind, most, seed):
    before = CHAIR
    for severity in DISTORTED:
        after = distort_sketch(CHAIR, severity, dice(seed), kind)
        assert not (ink(after) & ~ink(before)).any()
        gone = 1 - ink(after).sum() / ink(CHAIR).sum()
        assert most * severity - 0.12 <= gone <= most * severity + 0.01
        before = after


def test_a_short_stroke_goes_whole_or_stays_whole():
    paper = np.full((90, 90), 255, np.uint8)
    squares = [(slice(y, y + 5), slice(x, x + 5)) for y in range(3, 90, 15) for x in range(3, 90, 15)]
    for square in squares:
        paper[square] = 0
    after = distort_sketch(paper, 0.5, dice(), "dropped strokes")
    left = [ink(after[square]).mean() for square in squares]
    assert set(left) == {0.0, 1.0}
    assert left.count(0.0) == int(0.35 * len(squares))


def test_a_drawing_of_one_stroke_is_dropped_in_pieces():
    paper = np.full((128, 128), 255, np.uint8)
    paper[10:118, 60:63] = paper[60:63, 10:118] = 0
    after = [ink(distort_sketch(paper, severity, dice(1), "dropped strokes")).sum() for severity in DISTORTED]
    assert ink(paper).sum() > after[0] > after[1] > after[2] > 0


@pytest.mark.parametrize("seed", range(6))
def test_components_are_those_a_flood_fills(seed):
    mask = dice(seed).random((13, 17)) < 0.15 + 0.1 * seed
    flooded = flood(mask)
    label = _components(mask)
    assert (label[:, None] == label).tolist() == (flooded[:, None] == flooded).tolist()


def flood(mask: np.ndarray) -> np.ndarray:
    """Labels of the true pixels, by an explicit search from each that has none yet."""
    label = np.zeros(mask.shape, int)
    for y, x in np.argwhere(mask):
        stack = [(y, x)] if not label[y, x] else []
        name = label.max() + 1
        while stack:
            y, x = stack.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not label[y, x]:
                label[y, x] = name
                stack += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return label[mask]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_missing_of_a_partial_drawing_lies_on_one_side(seed):
    left = ink(distort_sketch(CHAIR, 1.0, dice(seed), "partial"))
    missing, kept = np.argwhere(ink(CHAIR) & ~left), np.argwhere(left)
    angles = np.linspace(0, 2 * np.pi, 720)
    directions = np.stack([np.sin(angles), np.cos(angles)])
    assert ((missing @ directions).max(0) <= (kept @ directions).min(0) + 1).any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("severity", "shorter"), [(0.5, 3**0.5), (1.0, 3.0)])
def test_a_wrong_aspect_makes_one_side_shorter(seed, severity, shorter):
    after = distort_sketch(CHAIR, severity, dice(seed), "wrong aspect") < 250
    ratios = sorted(np.ptp(np.argwhere(CHAIR < 250), 0) / np.ptp(np.argwhere(after), 0))
    assert ratios == pytest.approx([1, shorter], rel=0.1)


def test_wobble_takes_each_pixel_from_a_place_beside_it():
    pixels = dice().integers(0, 256, (5, 7), np.uint8)
    rows, columns = dice(1).uniform(-2, 8, (2, 5, 7))

    def value(y: int, x: int) -> float:
        return float(pixels[y, x]) if 0 <= y < 5 and 0 <= x < 7 else 255.0

    for y, x in np.ndindex(5, 7):
        top, left = int(np.floor(rows[y, x])), int(np.floor(columns[y, x]))
        down, right = rows[y, x] - top, columns[y, x] - left
        expected = sum(
            value(top + i, left + j) * (down if i else 1 - down) * (right if j else 1 - right)
            for i in (0, 1)
            for j in (0, 1)
        )
        assert int(_sampled(pixels, rows, columns)[y, x]) == pytest.approx(expected, abs=0.51)


def test_wobble_moves_lines_further_the_severer_it_is():
    line = np.full((128, 128), 255, np.uint8)
    line[64] = 0
    astray = []
    for severity in DISTORTED:
        y, x = np.argwhere(distort_sketch(line, severity, dice(), "wobble") < 200).T
        assert len(set(x)) > 115  # still from side to side
        astray.append(np.abs(y - 64).mean())
    assert astray == sorted(astray)
    assert 1 < astray[0] < astray[-1] < 0.2 * 128


@pytest.mark.parametrize("severity", DISTORTED)
def test_noise_is_so_many_grains(severity):
    paper, black = np.full((300, 400), 255, np.uint8), np.zeros((300, 400), np.uint8)
    dark = (distort_sketch(paper, severity, dice(), "noise") == 0).mean()
    white = (distort_sketch(black, severity, dice(), "noise") == 255).mean()
    assert dark == pytest.approx(0.04 * severity, rel=0.2)
    assert white == pytest.approx(0.5 * severity, rel=0.1)


@pytest.mark.parametrize("kind", [*SKETCH_DISTORTIONS, None])
@pytest.mark.parametrize("shape", [(1, 1), (2, 40), (1, 64, 64)])
@pytest.mark.parametrize("value", [0, 255])
def test_blank_full_and_tiny_sketches_are_distorted_too(kind, shape, value):
    after = distort_sketch(np.full(shape, value, np.uint8), 1.0, dice(), kind)
    assert after.shape == shape
    if value == 255 and kind not in ("noise", None):
        assert (after == 255).all()


def test_a_huge_sketch_is_made_smaller():
    wide = encode_png(Image.new("L", (3 * MOST_SIDE, MOST_SIDE), 255))
    assert open_picture(distort_encoded(wide, 0.1, dice())).size == (MOST_SIDE, round(MOST_SIDE / 3))


def test_dropped_words_leave_the_others_in_order():
    text = " ".join(f"w{n}" for n in range(400))
    kept = [distort_text(text, severity, dice(), "dropped words").split() for severity in DISTORTED]
    assert [len(words) for words in kept] == pytest.approx([300, 200, 100], abs=30)
    assert set(kept[2]) < set(kept[1]) < set(kept[0])
    assert all(words == sorted(words, key=lambda word: int(word[1:])) for words in kept)


@pytest.mark.parametrize("seed", range(8))
def test_a_wrong_colour_is_another_colour_in_the_same_place(seed):
    after = distort_text("navy suede boot, grey-green laces", 1.0, dice(seed), "wrong colour")
    words = re.fullmatch(r"(\w+) suede boot, (\w+)-(\w+) laces", after)
    assert words
    basic = {"black", "white", "red", "green", "yellow", "blue", "brown", "orange", "pink", "purple", "gray"}
    assert all(word in basic for word in words.groups())
    assert all(now != was for now, was in zip(words.groups(), ("blue", "gray", "green"), strict=True))


@pytest.mark.parametrize("text", ["suede boot, laces, logo", "", "redwood chair, tannery mark"])
def test_where_no_colour_is_named_none_is_wrong(text):
    assert distort_text(text, 1.0, dice(), "wrong colour") == text


def test_colours_go_wrong_more_often_the_severer_it_is():
    red = "red " * 900
    wrong = [
        distort_text(red, severity, dice(), "wrong colour").split().count("red") for severity in DISTORTED
    ]
    assert wrong == pytest.approx([600, 300, 0], abs=50)


@pytest.mark.parametrize(
    ("text", "light", "medium", "heavy"),
    [
        (CAPTION, "brown suede boot, yellow laces", "suede boot", "boot"),
        ("tan boot", "tan boot", "boot", "boot"),
        ("black cat on a red chair", "black cat", "black cat", "cat"),
        ("stool", "stool", "stool", "stool"),
        ("", "", "", ""),
        (", logo", ", logo", ", logo", ", logo"),
    ],
)
def test_only_the_item_is_left_in_the_end(text, light, medium, heavy):
    said = [distort_text(text, severity, dice(), "only the item") for severity in DISTORTED]
    assert said == [light, medium, heavy]


@pytest.mark.parametrize("seed", range(20))
def test_a_typo_is_one_edit_in_each_word(seed):
    text = "a suede boot, x2 laces"
    for was, now in zip(text.split(), distort_text(text, 1.0, dice(seed), "typos").split(), strict=True):
        letters = re.sub(r"\W", "", was)
        assert (now in edits(was)) if letters.isalpha() and len(letters) > 1 else (now == was)


def edits(word: str) -> set[str]:
    """Everything one slip of the fingers makes of a word."""
    places = range(len(word))
    dropped = {word[:i] + word[i + 1 :] for i in places}
    doubled = {word[:i] + 2 * word[i] + word[i + 1 :] for i in places}
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in places[:-1]}
    return (dropped | doubled | swapped) - {word}


def test_typos_grow_in_number():
    text = " ".join(["chair"] * 900)
    right = [distort_text(text, severity, dice(), "typos").split().count("chair") for severity in DISTORTED]
    assert right == pytest.approx([600, 300, 0], abs=50)


def test_every_kind_is_drawn_about_equally_often():
    """What is drawn is what one gets by asking for it: the dice that follow are the same."""
    sketches, captions = [], []
    for seed in range(200):
        drawn = distort_sketch(CHAIR, 1.0, dice(seed))
        same = [
            kind
            for kind in SKETCH_DISTORTIONS
            if (distort_sketch(CHAIR, 1.0, dice(seed), kind) == drawn).all()
        ]
        sketches += same
        said = distort_text(CAPTION, 1.0, dice(seed))
        captions += [
            kind for kind in TEXT_DISTORTIONS if distort_text(CAPTION, 1.0, dice(seed), kind) == said
        ]
    assert len(sketches) == len(captions) == 200
    assert all(sketches.count(kind) >= 25 for kind in SKETCH_DISTORTIONS)
    assert all(captions.count(kind) >= 30 for kind in TEXT_DISTORTIONS)


def test_a_row_at_severity_0_is_itself():
    assert distorted(row(), 0.0, seed=5) == row()


def test_a_row_is_distorted_by_its_name_and_the_seed_alone():
    once = distorted(row(), 1.0, seed=5)
    assert distorted(row(), 1.0, seed=5) == once
    assert distorted(row(), 1.0, seed=6)["sketches"] != once["sketches"]
    assert distorted(row("b"), 1.0, seed=5)["sketches"] != once["sketches"]
    assert distorted(row(sketches=1), 1.0, seed=5)["sketches"] == once["sketches"][:1]
    assert once["sketches"][0] != once["sketches"][1]  # each sketch has dice of its own
    assert {**once, "sketches": row()["sketches"], "text": CAPTION} == row()  # nothing else is touched


@pytest.mark.parametrize("text", [None, ""])
def test_a_row_that_lacks_things_still_lacks_them(text):
    assert distorted(row(sketches=0, text=text), 1.0, seed=0) == row(sketches=0, text=text)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: distort_sketch(CHAIR, 1.1, dice()), "severity: 1.1 is not between 0 and 1"),
        (lambda: distort_text(CAPTION, float("nan"), dice()), "severity: nan"),
        (lambda: distort_encoded(b"", -1, dice()), "severity: -1"),
        (lambda: distort_encoded(b"no picture", 0.5, dice()), "sketch: not a readable picture"),
        (
            lambda: distort_text(CAPTION, 1, dice(), "rhyme"),
            "kind: 'rhyme' is not one of dropped words, wrong",
        ),
        (
            lambda: distort_sketch(CHAIR, 0, dice(), "ink"),
            "kind: 'ink' is not one of dropped strokes, wobble",
        ),
        (lambda: distorted(row(), 0.5, seed=-1), "seed: -1 is negative"),
    ],
)
def test_bad_input_is_named(wrong, says):
    with pytest.raises(InputError, match=says):
        wrong()

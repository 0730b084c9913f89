"""Corruption of sketches and captions: identity at severity 0, reproducible, monotonic in severity."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from stbir.augmentation.query_corruption import (
    LEVELS,
    MAX_SIDE_PIXELS,
    SKETCH_CORRUPTIONS,
    TEXT_CORRUPTIONS,
    corrupt_encoded_sketch,
    corrupt_row,
    corrupt_sketch,
    corrupt_text,
)
from stbir.augmentation.sketch_corruption import _interpolate, _label_components
from stbir.data.schema import Row
from stbir.errors import InputError
from stbir.images import Pixels, encode_png, open_image, render_strokes

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
SEVERITIES = tuple(severity for severity in LEVELS.values() if severity)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def row(name: str = "a", sketches: int = 2, text: str | None = CAPTION) -> Row:
    encoded = [encode_png(Image.fromarray(CHAIR))] * sketches
    return {
        **{"photo_id": name, "category": "chair", "split": "test", "photo": b"", "sketch_count": sketches},
        **{"sketches": encoded, "text": text},
    }


def ink(pixels: Pixels) -> np.ndarray:
    return pixels < 128


@pytest.mark.parametrize("kind", SKETCH_CORRUPTIONS)
def test_a_sketch_is_unchanged_at_severity_0_and_changed_at_1(kind):
    clean = CHAIR.copy()
    assert (corrupt_sketch(CHAIR, 0.0, rng(), kind) == clean).all()
    assert (corrupt_sketch(CHAIR, 1.0, rng(), kind) != clean).any()
    assert (clean == CHAIR).all()  # the input is not modified


@pytest.mark.parametrize("kind", TEXT_CORRUPTIONS)
def test_a_caption_is_unchanged_at_severity_0_and_changed_at_1(kind):
    assert corrupt_text(CAPTION, 0.0, rng(), kind) == CAPTION
    assert corrupt_text(CAPTION, 1.0, rng(), kind) != CAPTION


def test_the_bytes_of_an_encoded_sketch_are_unchanged_at_severity_0():
    jpeg = io.BytesIO()
    Image.fromarray(CHAIR).save(jpeg, "JPEG")
    assert corrupt_encoded_sketch(jpeg.getvalue(), 0.0, rng()) == jpeg.getvalue()


@pytest.mark.parametrize("kind", SKETCH_CORRUPTIONS)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_corruption_is_reproducible_and_keeps_shape_and_dtype(kind, severity):
    corrupted, repeated = (corrupt_sketch(CHAIR, severity, rng(3), kind) for _ in range(2))
    assert (corrupted == repeated).all()
    assert (corrupted.shape, corrupted.dtype) == (CHAIR.shape, np.uint8)
    assert (corrupt_sketch(CHAIR[None], severity, rng(3), kind) == corrupted[None]).all()
    assert (corrupt_sketch(CHAIR, severity, rng(4), kind) != corrupted).any() or kind == "wrong aspect"
    encoded = corrupt_encoded_sketch(encode_png(Image.fromarray(CHAIR)), severity, rng(3), kind)
    assert (np.array(Image.open(io.BytesIO(encoded))) == corrupted).all()


@pytest.mark.parametrize(("kind", "max_fraction"), [("dropped strokes", 0.7), ("partial", 0.65)])
@pytest.mark.parametrize("seed", range(5))
def test_erased_ink_is_proportional_to_severity_and_stays_erased(kind, max_fraction, seed):
    before = CHAIR
    for severity in SEVERITIES:
        after = corrupt_sketch(CHAIR, severity, rng(seed), kind)
        assert not (ink(after) & ~ink(before)).any()
        erased = 1 - ink(after).sum() / ink(CHAIR).sum()
        assert max_fraction * severity - 0.12 <= erased <= max_fraction * severity + 0.01
        before = after


def test_a_short_stroke_is_erased_completely_or_not_at_all():
    paper = np.full((90, 90), 255, np.uint8)
    boxes = [(slice(y, y + 5), slice(x, x + 5)) for y in range(3, 90, 15) for x in range(3, 90, 15)]
    for box in boxes:
        paper[box] = 0
    after = corrupt_sketch(paper, 0.5, rng(), "dropped strokes")
    ink_fractions = [ink(after[box]).mean() for box in boxes]
    assert set(ink_fractions) == {0.0, 1.0}
    assert ink_fractions.count(0.0) == int(0.35 * len(boxes))


def test_a_drawing_of_one_stroke_is_erased_in_pieces():
    paper = np.full((128, 128), 255, np.uint8)
    paper[10:118, 60:63] = paper[60:63, 10:118] = 0
    after = [ink(corrupt_sketch(paper, severity, rng(1), "dropped strokes")).sum() for severity in SEVERITIES]
    assert ink(paper).sum() > after[0] > after[1] > after[2] > 0


@pytest.mark.parametrize("seed", range(6))
def test_components_equal_those_of_a_flood_fill(seed):
    mask = rng(seed).random((13, 17)) < 0.15 + 0.1 * seed
    expected = flood_fill(mask)
    label = _label_components(mask)
    assert (label[:, None] == label).tolist() == (expected[:, None] == expected).tolist()


def flood_fill(mask: np.ndarray) -> np.ndarray:
    """Labels of the true pixels, by an explicit search from each unlabelled one."""
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
def test_the_erased_ink_of_a_partial_drawing_is_on_one_side(seed):
    remaining_ink = ink(corrupt_sketch(CHAIR, 1.0, rng(seed), "partial"))
    erased, remaining = np.argwhere(ink(CHAIR) & ~remaining_ink), np.argwhere(remaining_ink)
    angles = np.linspace(0, 2 * np.pi, 720)
    directions = np.stack([np.sin(angles), np.cos(angles)])
    assert ((erased @ directions).max(0) <= (remaining @ directions).min(0) + 1).any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("severity", "shorter"), [(0.5, 3**0.5), (1.0, 3.0)])
def test_a_wrong_aspect_makes_one_side_shorter(seed, severity, shorter):
    after = corrupt_sketch(CHAIR, severity, rng(seed), "wrong aspect") < 250
    ratios = sorted(np.ptp(np.argwhere(CHAIR < 250), 0) / np.ptp(np.argwhere(after), 0))
    assert ratios == pytest.approx([1, shorter], rel=0.1)


def test_interpolation_equals_an_explicit_loop():
    pixels = rng().integers(0, 256, (5, 7), np.uint8)
    rows, columns = rng(1).uniform(-2, 8, (2, 5, 7))

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
        assert int(_interpolate(pixels, rows, columns)[y, x]) == pytest.approx(expected, abs=0.51)


def test_wobble_increases_with_severity():
    line = np.full((128, 128), 255, np.uint8)
    line[64] = 0
    distances = []
    for severity in SEVERITIES:
        y, x = np.argwhere(corrupt_sketch(line, severity, rng(), "wobble") < 200).T
        assert len(set(x)) > 115  # still from side to side
        distances.append(np.abs(y - 64).mean())
    assert distances == sorted(distances)
    assert 1 < distances[0] < distances[-1] < 0.2 * 128


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_expected_fraction_of_grains(severity):
    paper, black = np.full((300, 400), 255, np.uint8), np.zeros((300, 400), np.uint8)
    dark = (corrupt_sketch(paper, severity, rng(), "noise") == 0).mean()
    white = (corrupt_sketch(black, severity, rng(), "noise") == 255).mean()
    assert dark == pytest.approx(0.04 * severity, rel=0.2)
    assert white == pytest.approx(0.5 * severity, rel=0.1)


@pytest.mark.parametrize("kind", [*SKETCH_CORRUPTIONS, None])
@pytest.mark.parametrize("shape", [(1, 1), (2, 40), (1, 64, 64)])
@pytest.mark.parametrize("value", [0, 255])
def test_blank_black_and_tiny_sketches_can_be_corrupted(kind, shape, value):
    after = corrupt_sketch(np.full(shape, value, np.uint8), 1.0, rng(), kind)
    assert after.shape == shape
    if value == 255 and kind not in ("noise", None):
        assert (after == 255).all()


def test_a_large_sketch_is_shrunk():
    wide = encode_png(Image.new("L", (3 * MAX_SIDE_PIXELS, MAX_SIDE_PIXELS), 255))
    size = (MAX_SIDE_PIXELS, round(MAX_SIDE_PIXELS / 3))
    assert open_image(corrupt_encoded_sketch(wide, 0.1, rng())).size == size


def test_dropped_words_leave_the_order_of_the_others():
    text = " ".join(f"w{n}" for n in range(400))
    remaining = [corrupt_text(text, severity, rng(), "dropped words").split() for severity in SEVERITIES]
    assert [len(tokens) for tokens in remaining] == pytest.approx([300, 200, 100], abs=30)
    assert set(remaining[2]) < set(remaining[1]) < set(remaining[0])
    assert all(tokens == sorted(tokens, key=lambda token: int(token[1:])) for tokens in remaining)


@pytest.mark.parametrize("seed", range(8))
def test_a_wrong_colour_is_another_basic_colour_in_the_same_position(seed):
    after = corrupt_text("navy suede boot, grey-green laces", 1.0, rng(seed), "wrong colour")
    match = re.fullmatch(r"(\w+) suede boot, (\w+)-(\w+) laces", after)
    assert match
    basic = {"black", "white", "red", "green", "yellow", "blue", "brown", "orange", "pink", "purple", "gray"}
    assert all(word in basic for word in match.groups())
    assert all(new != old for new, old in zip(match.groups(), ("blue", "gray", "green"), strict=True))


@pytest.mark.parametrize("text", ["suede boot, laces, logo", "", "redwood chair, tannery mark"])
def test_text_is_unchanged_if_it_has_no_colour(text):
    assert corrupt_text(text, 1.0, rng(), "wrong colour") == text


def test_wrong_colours_are_more_frequent_at_higher_severity():
    red = "red " * 900
    counts = [
        corrupt_text(red, severity, rng(), "wrong colour").split().count("red") for severity in SEVERITIES
    ]
    assert counts == pytest.approx([600, 300, 0], abs=50)


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
def test_only_the_item_remains_at_full_severity(text, light, medium, heavy):
    corrupted = [corrupt_text(text, severity, rng(), "only the item") for severity in SEVERITIES]
    assert corrupted == [light, medium, heavy]


@pytest.mark.parametrize("seed", range(20))
def test_each_word_has_one_typo(seed):
    text = "a suede boot, x2 laces"
    for before, after in zip(text.split(), corrupt_text(text, 1.0, rng(seed), "typos").split(), strict=True):
        letters = re.sub(r"\W", "", before)
        assert (after in edits(before)) if letters.isalpha() and len(letters) > 1 else (after == before)


def edits(word: str) -> set[str]:
    """All words with one letter dropped, doubled or swapped with the next."""
    positions = range(len(word))
    dropped = {word[:i] + word[i + 1 :] for i in positions}
    doubled = {word[:i] + 2 * word[i] + word[i + 1 :] for i in positions}
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in positions[:-1]}
    return (dropped | doubled | swapped) - {word}


def test_typos_are_more_frequent_at_higher_severity():
    text = " ".join(["chair"] * 900)
    counts = [corrupt_text(text, severity, rng(), "typos").split().count("chair") for severity in SEVERITIES]
    assert counts == pytest.approx([600, 300, 0], abs=50)


def test_kinds_are_drawn_about_equally_often():
    """Drawing a kind and passing that kind give the same result: the rng continues the same."""
    sketches, captions, chair = [], [], CHAIR[::2, ::2]
    for seed in range(200):
        sketch, text = corrupt_sketch(chair, 1.0, rng(seed)), corrupt_text(CAPTION, 1.0, rng(seed))
        sketches += [
            k for k in SKETCH_CORRUPTIONS if (corrupt_sketch(chair, 1.0, rng(seed), k) == sketch).all()
        ]
        captions += [k for k in TEXT_CORRUPTIONS if corrupt_text(CAPTION, 1.0, rng(seed), k) == text]
    assert len(sketches) == len(captions) == 200
    assert all(sketches.count(kind) >= 25 for kind in SKETCH_CORRUPTIONS)
    assert all(captions.count(kind) >= 30 for kind in TEXT_CORRUPTIONS)


def test_a_row_is_unchanged_at_severity_0():
    assert corrupt_row(row(), 0.0, seed=5) == row()


def test_the_corruption_of_a_row_depends_only_on_its_id_and_the_seed():
    corrupted = corrupt_row(row(), 1.0, seed=5)
    assert corrupt_row(row(), 1.0, seed=5) == corrupted
    assert corrupt_row(row(), 1.0, seed=6)["sketches"] != corrupted["sketches"]
    assert corrupt_row(row("b"), 1.0, seed=5)["sketches"] != corrupted["sketches"]
    assert corrupt_row(row(sketches=1), 1.0, seed=5)["sketches"] == corrupted["sketches"][:1]
    assert corrupted["sketches"][0] != corrupted["sketches"][1]  # each sketch has its own rng
    assert {**corrupted, "sketches": row()["sketches"], "text": CAPTION} == row()  # nothing else changes


@pytest.mark.parametrize("text", [None, ""])
def test_a_row_is_unchanged_if_it_has_no_sketches_and_no_text(text):
    assert corrupt_row(row(sketches=0, text=text), 1.0, seed=0) == row(sketches=0, text=text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corrupt_sketch(CHAIR, 1.1, rng()), "severity: 1.1 is not between 0 and 1"),
        (lambda: corrupt_text(CAPTION, float("nan"), rng()), "severity: nan"),
        (lambda: corrupt_encoded_sketch(b"", -1, rng()), "severity: -1"),
        (lambda: corrupt_encoded_sketch(b"not an image", 0.5, rng()), "sketch: not a readable image"),
        (
            lambda: corrupt_text(CAPTION, 1, rng(), "rhyme"),
            "kind: 'rhyme' is not one of dropped words, wrong",
        ),
        (lambda: corrupt_sketch(CHAIR, 0, rng(), "ink"), "kind: 'ink' is not one of dropped strokes, wobble"),
        (lambda: corrupt_row(row(), 0.5, seed=-1), "seed: -1 is negative"),
    ],
)
def test_invalid_arguments_are_input_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()

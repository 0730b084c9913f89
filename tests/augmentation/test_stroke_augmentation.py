"""Stroke augmentation: each change alone, and none."""

from typing import Any

import numpy as np
import pytest

from stbir.augmentation.stroke_augmentation import MAX_GREY, draw_augmented

SIZE = 64
# Four horizontal lines, each in a quarter of the canvas.
STROKES = [np.array([[0.2, y], [0.8, y]]) for y in (0.125, 0.375, 0.625, 0.875)]
PLAIN: dict[str, Any] = {"drop": 0, "reorder": 0, "jitter": 0, "width": (0.05, 0.05), "pencil": 0}


def draw(seed: int = 0, **changes: Any) -> np.ndarray:
    return np.asarray(draw_augmented(STROKES, SIZE, np.random.default_rng(seed), **PLAIN | changes))


def drawn(pixels: np.ndarray) -> list[bool]:
    """Whether each stroke is there."""
    return [bool((quarter < 128).any()) for quarter in np.split(pixels, 4)]


def test_without_changes_all_strokes_are_drawn_alike() -> None:
    pixels = draw()
    assert pixels.shape == (SIZE, SIZE)
    assert drawn(pixels) == [True] * 4
    assert (draw(1) == pixels).all()
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_the_last_strokes_are_dropped_first_and_one_remains() -> None:
    patterns = {tuple(drawn(draw(seed, drop=1))) for seed in range(40)}
    assert patterns == {(True,) * n + (False,) * (4 - n) for n in (1, 2, 3, 4)}


def test_in_a_random_order_any_stroke_is_dropped() -> None:
    patterns = {tuple(drawn(draw(seed, drop=1, reorder=1))) for seed in range(100)}
    assert all(any(not pattern[n] for pattern in patterns) for n in range(4))
    assert all(any(pattern) for pattern in patterns)


def test_jitter_moves_each_stroke_by_itself() -> None:
    rows = [
        [int((quarter < 128).any(1).argmax()) for quarter in np.split(draw(s, jitter=0.02), 4)]
        for s in (0, 1)
    ]
    still = [int((quarter < 128).any(1).argmax()) for quarter in np.split(draw(), 4)]
    moves = [np.subtract(row, still) for row in rows]
    assert len({tuple(move) for move in moves}) == 2
    assert all(len(set(move.tolist())) > 1 for move in moves)


@pytest.mark.parametrize("width", [0.03, 0.09])
def test_lines_have_the_width_in_shares_of_the_image(width: float) -> None:
    pixels = draw(width=(width, width))
    thickness = (255 - pixels[: SIZE // 4, SIZE // 2].astype(float)).sum() / 255
    assert thickness == pytest.approx(width * SIZE, abs=0.5)


def test_a_pencil_draws_each_line_in_a_grey_of_its_own() -> None:
    greys = [int(quarter.min()) for quarter in np.split(draw(pencil=1), 4)]
    assert len(set(greys)) > 1
    assert max(greys) <= MAX_GREY

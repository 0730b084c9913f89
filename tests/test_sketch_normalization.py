"""Normalization of sketches: any ink on any paper becomes black on white; an ordinary sketch is unchanged."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from stbir.errors import ImageTooLargeError, InputError, NoStrokeError
from stbir.images import decode_query_sketch, encode_png, open_image, read_sketch
from stbir.sketch_normalization import MIN_CONTRAST, has_stroke, lay_on_paper, normalize_sketch
from tests.data.image_files import drawing

Color = tuple[int, ...]
COLORS = st.tuples(*[st.integers(0, 255)] * 3)
BLACK_ON_WHITE = np.asarray(drawing().convert("L")).astype(int)


def difference(sketch: Image.Image) -> int:
    """The largest difference from black on white, in grey levels."""
    return int(np.abs(np.asarray(sketch).astype(int) - BLACK_ON_WHITE).max())


@pytest.mark.parametrize(
    ("paper", "ink"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((196, 193, 186), (40, 60, 150)),
        ((30, 70, 50), (230, 230, 220)),
        ((255, 255, 255), (255, 230, 0)),
        ((128, 128, 128), (90, 90, 90)),
    ],
    ids=["white on black", "blue on grey", "chalk", "yellow on white", "pencil on grey"],
)
def test_any_ink_on_any_paper_becomes_black_on_white(paper: Color, ink: Color) -> None:
    assert difference(normalize_sketch(drawing(paper, ink))) <= 4


@given(paper=COLORS, ink=COLORS)
def test_any_two_colors_become_black_on_white(paper: Color, ink: Color) -> None:
    contrast = max(abs(p - i) for p, i in zip(paper, ink, strict=True))
    image = drawing(paper, ink)
    sketch = normalize_sketch(image)
    if contrast < MIN_CONTRAST:
        assert sketch.tobytes() == image.convert("L").tobytes()
        assert not has_stroke(sketch)
        return
    assert has_stroke(sketch)
    assume(sketch.tobytes() != image.convert("L").tobytes())
    # A weak contrast has few levels; a strong one keeps its own.
    assert difference(sketch) <= (2 + 2 * 255 / contrast if contrast < 224 else 31)


@given(color=COLORS, side=st.integers(1, 40), mode=st.sampled_from(["L", "RGB"]))
def test_an_image_of_one_color_has_no_stroke(color: Color, side: int, mode: str) -> None:
    image = Image.new("RGB", (side, 3 * side), color).convert(mode).convert("RGB")
    assert not has_stroke(image)
    assert normalize_sketch(image).tobytes() == image.convert("L").tobytes()


@given(
    level=st.integers(0, 160), size=st.tuples(st.integers(1, 70), st.integers(8, 70)), seed=st.integers(0, 9)
)
def test_a_sketch_with_a_dark_stroke_on_white_is_unchanged(
    level: int, size: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = Image.new("L", size, 255)
    points = [tuple(int(v) for v in rng.integers(0, 70, 2)) for _ in range(3)]
    ImageDraw.Draw(image).line([*points, (0, 0)], fill=level)
    assert normalize_sketch(image.convert("RGB")).tobytes() == image.tobytes()


def test_real_sketches_are_unchanged_and_have_strokes(data_root: Path) -> None:
    files = [*(data_root / "ChairV2/trainA").glob("*.png"), *(data_root / "ShoeV1/sketch").rglob("*.png")]
    for file in sorted(files)[::7]:
        data = file.read_bytes()
        sketch = read_sketch(data)
        assert sketch.tobytes() == open_image(data).convert("L").tobytes(), file
        assert has_stroke(sketch), file


@pytest.mark.parametrize(
    "ink", [(0, 0, 0, 255), (255, 255, 255, 255), (255, 240, 0, 255), (250, 250, 250, 255)]
)
def test_ink_of_any_color_without_paper_becomes_black_on_white(ink: Color) -> None:
    assert difference(normalize_sketch(lay_on_paper(drawing((*ink[:3], 0), ink, mode="RGBA")))) <= 5


def test_white_ink_with_grey_edges_is_laid_on_black() -> None:
    """As programs leave it that resize an image whose transparent pixels are black."""
    sketch = normalize_sketch(lay_on_paper(drawing((0, 0, 0, 0), (255,) * 4, mode="RGBA")))
    assert np.abs(np.asarray(sketch).astype(int) - BLACK_ON_WHITE).mean() < 4


def test_a_filled_figure_without_paper_is_laid_on_white() -> None:
    image = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(image).ellipse((6, 6, 57, 57), fill="white", outline="black", width=3)
    corner, inside = (normalize_sketch(lay_on_paper(image)).getpixel(at) for at in ((0, 0), (32, 32)))
    assert (corner, inside) == (255, 255)


@pytest.mark.parametrize("level", [0, 255])
def test_a_half_transparent_pen_is_visible(level: int) -> None:
    pen = drawing((level, level, level, 0), (level, level, level, 128), mode="RGBA")
    sketch = normalize_sketch(lay_on_paper(pen))
    assert (sketch.getpixel((0, 0)), sketch.getextrema()[0] <= 128) == (255, True)


@given(level=st.integers(0, 31))
def test_the_inverse_of_a_sketch_has_its_grey_levels(level: int) -> None:
    sketch = drawing((255,) * 3, (level,) * 3)
    assert normalize_sketch(ImageOps.invert(sketch)).tobytes() == sketch.convert("L").tobytes()


def unevenly_lit(paper: Color, ink: Color, noise: float = 0, strokes: bool = True) -> Image.Image:
    """A photo of a drawing, 300 x 300, that loses a third of its light towards one corner."""
    image = drawing(paper, ink if strokes else paper, side=300)
    y, x = np.mgrid[0:300, 0:300] / 300
    light = 1 - 0.35 * (0.6 * x + 0.4 * y)
    grain = np.random.default_rng(0).normal(0, noise, (300, 300, 3))
    pixels = np.asarray(image) * light[..., None] + grain
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("noise", [0, 5, 10])
@pytest.mark.parametrize(("paper", "ink"), [((200, 190, 170), (60, 60, 90)), ((40, 80, 60), (220, 220, 210))])
def test_uneven_light_and_noise_disappear(paper: Color, ink: Color, noise: float) -> None:
    expected = np.asarray(drawing(side=300, mode="L")).astype(int)
    sketch = np.asarray(normalize_sketch(unevenly_lit(paper, ink, noise))).astype(int)
    assert np.abs(sketch - expected).mean() < 4
    assert not has_stroke(normalize_sketch(unevenly_lit(paper, ink, noise, strokes=False)))


def test_a_frame_or_a_filled_figure_does_not_make_paper_dark() -> None:
    framed = drawing(side=128)
    ImageDraw.Draw(framed).rectangle((0, 0, 127, 127), outline="black", width=3)
    filled = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(filled).ellipse((2, 2, 61, 61), fill="black")
    for image in (framed, filled):
        assert normalize_sketch(image).tobytes() == image.convert("L").tobytes()
    inverted = normalize_sketch(ImageOps.invert(framed.crop((4, 4, 124, 124))))
    assert inverted.tobytes() == framed.crop((4, 4, 124, 124)).convert("L").tobytes()


def test_one_dot_is_a_stroke() -> None:
    image = Image.new("L", (256, 256), 255)
    image.paste(0, (100, 100, 102, 102))
    assert has_stroke(image)


def encode(image: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("image", [drawing((255, 255, 255), (255, 255, 255)), Image.new("RGBA", (9, 9))])
def test_a_query_without_a_stroke_is_refused(image: Image.Image) -> None:
    with pytest.raises(NoStrokeError, match=r"^sketch: no stroke on it; draw one$"):
        decode_query_sketch(encode_png(image), 32)


def test_a_query_is_decoded_like_a_sketch_of_a_data_set() -> None:
    pixels = decode_query_sketch(encode_png(drawing((0, 0, 0), (255, 255, 255))), 64)
    assert (pixels.shape, pixels.flags.writeable) == ((1, 64, 64), True)
    assert difference(Image.fromarray(pixels[0])) == 0
    with pytest.raises(InputError, match="unknown format"):
        decode_query_sketch(encode(drawing(), "TIFF"), 64)


def test_a_query_that_needs_too_much_memory_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_png(drawing())

    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", out_of_memory)
    with pytest.raises(ImageTooLargeError, match="sketch: it needs more memory"):
        decode_query_sketch(data, 32)

"""Strokes from QMUL's coordinate file to the batch of a training step."""

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ray_jobs.jobs.prepare_shards import _entry
from ray_jobs.recipes import recipe
from ray_jobs.recipes.override import override
from ray_jobs.training.decode import iter_local_batches, read_shares
from stbir.config import Augmentation, StrokeAugmentation
from stbir.data.photo_index import build_photo_index
from stbir.data.sampling import iter_steps
from stbir.data.schema import SHARD_SCHEMA, Row
from stbir.data.shard_writer import count_strokes, publish, write_rows
from stbir.data.shards import open_shards
from stbir.data.sources.entry import Entry
from stbir.data.sources.registry import open_source
from stbir.data.strokes import decode_strokes, encode_strokes, is_strokes
from stbir.data.validation import validate_entry
from stbir.errors import InputError
from stbir.images import encode_png, open_sketch, render_strokes
from stbir.storage.folder import Folder
from stbir.training.sample_checks import require_strokes
from tests.data.image_files import png, write_files

# Two strokes: a triangle's side and a dot, in pixels of 256.
POINTS = np.array([[32, 32, 0], [224, 32, 0], [128, 224, 1], [64, 192, 1]], np.float32)
STROKES = [POINTS[:3, :2] / 256, POINTS[3:, :2] / 256]
SKETCH = encode_png(render_strokes([[(float(x), float(y)) for x, y in s] for s in STROKES]))


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def qmul(root: Path, strokes: bytes | None) -> list[Entry]:
    """Photo a with two sketches, of which one has strokes; photo b with one sketch."""
    files: dict[str, bytes | str] = {f"trainB/{name}.png": png(128) for name in "ab"}
    files |= {f"trainA/{name}.png": SKETCH for name in ("a_1", "a_2", "b_1")}
    files |= {"chair_train.txt": "a.png\tred\nb.png\tblue\n"}
    write_files(root, files | ({} if strokes is None else {"train_strokes.npz": strokes}))
    source = open_source(f"qmul:{root}")
    assert source.unused == ({} if strokes is None else {"strokes without sketch": 1})
    return source.entries


def rows_of(root: Path, strokes: bytes | None) -> list[Row]:
    source = open_source(f"qmul:{root}") if (root / "trainA").exists() else None
    entries = source.entries if source else qmul(root, strokes)
    rows = [
        validate_entry(entry, lambda uri: Path(uri.removeprefix("file://")).read_bytes(), ())[0]
        for entry in entries
    ]
    return [row for row in rows if row is not None]


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    return rows_of(tmp_path / "qmul", npz(a_2=POINTS, c_1=POINTS))


def test_strokes_survive_as_bytes() -> None:
    data = encode_strokes(POINTS / 256 * np.array([1, 1, 256], np.float32))
    assert is_strokes(data)
    assert not is_strokes(SKETCH)
    for stroke, expected in zip(decode_strokes(data), STROKES, strict=True):
        np.testing.assert_allclose(stroke, expected)


def test_each_sketch_keeps_its_own_strokes_and_others_have_none(rows: list[Row]) -> None:
    first, second = rows
    strokes = first.get("strokes") or []
    assert strokes[0] is None
    assert strokes[1] is not None
    np.testing.assert_allclose(decode_strokes(strokes[1])[0], STROKES[0])
    assert "strokes" not in second


def test_strokes_of_a_bad_sketch_leave_with_it(tmp_path: Path) -> None:
    qmul(tmp_path, npz(a_2=POINTS, c_1=POINTS))
    (tmp_path / "trainA" / "a_1.png").write_bytes(b"not an image")
    first, _ = rows_of(tmp_path, None)
    assert first["sketch_count"] == 1
    assert [is_strokes(known or b"") for known in first.get("strokes") or []] == [True]


def test_an_entry_keeps_its_strokes_on_the_way_to_a_task(tmp_path: Path) -> None:
    for entry in qmul(tmp_path, npz(a_2=POINTS, c_1=POINTS)):
        assert _entry(json.dumps(asdict(entry))) == entry


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zip", r"train_strokes\.npz: not an \.npz of numbers"),
        (npz(a_1=np.zeros((4, 2))), r"train_strokes\.npz: a_1: points of shape \(4, 2\); give \(N, 3\)"),
        (npz(a_1=np.zeros((0, 3))), r"a_1: points of shape \(0, 3\)"),
        (npz(a_1=np.array([[300, 0, 1]])), "a_1: points outside the canvas"),
        (npz(a_1=np.array([[np.nan, 0, 1]])), "a_1: points outside the canvas"),
        (npz(a_1=np.array([{}], object)), r"train_strokes\.npz: not an \.npz of numbers"),
    ],
)
def test_a_damaged_coordinate_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        qmul(tmp_path, content)


def write(uri: str, rows: list[Row]) -> str:
    part = write_rows(Folder(uri), 0, rows)
    publish(Folder(uri), [part], {"photos": len(rows), **count_strokes([part])}, {"source": "test"})
    return uri


def test_shards_have_the_column_only_if_there_are_strokes(rows: list[Row], tmp_path: Path) -> None:
    with_strokes = open_shards(write(str(tmp_path / "with"), rows))
    without = open_shards(write(str(tmp_path / "without"), [rows[1]]))
    assert with_strokes.manifest.counts["strokes"] == 1
    assert "strokes" not in without.manifest.counts
    [name] = without.files
    assert pq.read_schema(tmp_path / "without" / name).names == SHARD_SCHEMA.names
    assert [row.get("strokes") for row in with_strokes.iter_rows(None)] == [rows[0]["strokes"], None]


AUGMENTATION = Augmentation(
    flip=False, scale=0, shift=0, rotate=0, strokes=StrokeAugmentation(0, 0, 0, (0.01, 0.01), 0)
)


@pytest.mark.parametrize("strokes", [AUGMENTATION.strokes, None])
def test_a_batch_draws_the_sketches_that_have_strokes(
    strokes: StrokeAugmentation | None, rows: list[Row], tmp_path: Path
) -> None:
    photos = build_photo_index(open_shards(write(str(tmp_path / "shards"), rows)), ["train"], [])
    r = override(recipe("smoke"), ["batch_size=3"])
    stage = replace(recipe("finetune").stages[0], epochs=2)
    r = replace(r, stages=(stage,), augmentation=replace(AUGMENTATION, strokes=strokes))
    size = r.model.sketch_preprocess.size
    image = np.asarray(open_sketch(SKETCH, size))
    [share, *_] = read_shares(photos, r, 1, [next(iter_steps(photos, r))])
    [batch, *_] = iter_local_batches(photos, r)
    assert batch.sketches is not None
    for photo, sketch, data, pixels in zip(
        share.photo, share.sketch, share.sketches, batch.sketches, strict=True
    ):
        has_strokes = (photos.ids[photo], sketch) == ("chair:a", 1) and strokes is not None
        assert is_strokes(data) == has_strokes
        assert (pixels[0] == image).all() == (not has_strokes)
        # The same drawing: its ink lies within two pixels of the image's.
        assert np.abs(blurred(pixels[0]) - blurred(image)).max() < 50
    assert {(photos.ids[p], int(s)) for p, s in zip(share.photo, share.sketch, strict=True)} >= {
        ("chair:a", 1)
    }


def blurred(pixels: np.ndarray) -> np.ndarray:
    """Means over 4 x 4 pixels."""
    size = len(pixels) // 4
    return pixels.reshape(size, 4, size, 4).astype(float).mean((1, 3))


def test_shards_without_strokes_are_refused_for_stroke_augmentation() -> None:
    r = replace(recipe("smoke"), augmentation=AUGMENTATION)
    require_strokes(r, [{"photos": 2}, {"strokes": 1}])
    require_strokes(recipe("smoke"), [{"photos": 2}])
    with pytest.raises(InputError, match=r"^augmentation\.strokes: the shards have no strokes; .*=null"):
        require_strokes(r, [{"photos": 2}])


def test_strokes_are_set_by_an_option() -> None:
    r = override(recipe("smoke"), ["augmentation.strokes={}"])
    assert r.augmentation is not None
    assert r.augmentation.strokes == StrokeAugmentation()
    with pytest.raises(InputError, match=r"width.*give the smaller one first"):
        override(recipe("smoke"), ['augmentation.strokes={"width": [0.02, 0.01]}'])

"""Own data: a table of captions and folders, joined by file name; nothing is dropped without a count."""

import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.prepare_shards import parser
from stbir.data.sources.entry import Entry, Source, hash_split
from stbir.data.sources.own_data.image_folder import ImageFolder
from stbir.data.sources.own_data.source import OwnFiles
from stbir.data.sources.registry import open_source
from stbir.data.validation import validate_entry
from stbir.errors import InputError
from stbir.storage.folder import Folder
from tests.data.image_files import png, sketch_png, write_files
from tests.documented_commands import document_commands
from tests.own_data import own_data_replacements, write_own_data

ROWS = [
    {"Filename": "c1.jpg", "text": "red seat", "price": "3"},
    {"Filename": "c2.jpg", "text": "blue seat", "price": ""},
    {"Filename": "gone.jpg", "text": "no photo", "price": ""},
    {"Filename": "", "text": "no file", "price": ""},
    {"Filename": "c1.jpg", "text": "another caption", "price": ""},
]
FILES = {
    **{f"photos/{name}": png() for name in ("c1.jpg", "c2.jpg", "c3.jpg", "sub/c4.jpg")},
    "photos/notes.txt": b"",
    **{f"sketches/{name}": sketch_png() for name in ("c1.png", "c1_2.png", "c3-x.png", "other.png")},
}


def csv(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    lines = [delimiter.join(rows[0]), *(delimiter.join(row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(csv(rows, "\t" if path.suffix == ".tsv" else ","))


def names(entry: Entry) -> list[str]:
    return [uri.rpartition("/")[2] for uri in entry.sketches]


def by_id(source: Source) -> dict[str, Entry]:
    return {entry.photo_id: entry for entry in source.entries}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_with_photos_and_sketches(tmp_path: Path, suffix: str) -> None:
    write_files(tmp_path, FILES)
    write_table(tmp_path / f"t.{suffix}", ROWS)
    files = OwnFiles(f"{tmp_path}/photos", f"{tmp_path}/sketches", "file=Filename,caption=text")
    source = open_source(f"table:{tmp_path}/t.{suffix}", files)
    entries = by_id(source)
    assert {name: (entry.text, names(entry)) for name, entry in entries.items()} == {
        "c1.jpg": ("red seat", ["c1.png", "c1_2.png"]),
        "c2.jpg": ("blue seat", []),
        "c3.jpg": (None, ["c3-x.png"]),
        "sub/c4.jpg": (None, []),
    }
    assert source.unused == {
        "files without an image suffix (.txt)": 1,
        "rows without a file name": 1,
        "rows whose photo is missing": 1,
        "further values of caption": 1,
        "sketches without photo": 1,
    }
    assert [entry.split for entry in source.entries] == [hash_split(name) for name in entries]
    assert [entry.category for entry in source.entries] == ["photos"] * 3 + ["sub"]
    assert [entry.class_ for entry in source.entries] == ["photos"] * 3 + ["sub"]
    assert source.read(entries["c1.jpg"].photo) == FILES["photos/c1.jpg"]
    text = "\n".join(source.notes)
    assert "columns: file=Filename, caption=text; not used: price" in text
    assert "1 rows whose photo is missing (first: gone.jpg): check --photos" in text
    assert "1 sketches without photo (first: other.png): name a sketch as its photo" in text
    assert "4 photos: 2 with caption, 2 with sketch, 1 with both; next: train.py --recipe finetune " in text
    assert "finetune_text trains on all 2 with a caption" in text
    assert not any("\n" in note for note in source.notes)


def test_columns_are_guessed_and_said(tmp_path: Path) -> None:
    """Files relative to the table; sketches, ids, categories, classes and splits by columns."""
    row = {"Image": "p/1.jpg", "Caption": "red", "sketch": "s/a.png", "id": "x1", "category": "cup"}
    rows = [
        {**row, "class": "mug", "split": "val"},
        {**row, "sketch": "s/b.png", "class": "mug", "split": "val"},
        {**row, "Image": "p/2.jpg", "id": "x2", "category": "pot", "sketch": "", "class": "", "split": ""},
    ]
    write_table(tmp_path / "t.csv", rows)
    source = open_source(f"table:{tmp_path}/t.csv")
    one, two = source.entries
    assert (one.photo_id, one.category, one.class_, one.split, one.text) == ("x1", "cup", "mug", "val", "red")
    assert [uri.removeprefix(f"file://{tmp_path}/") for uri in (one.photo, *one.sketches)] == [
        *("p/1.jpg", "s/a.png", "s/b.png")
    ]
    assert (two.class_, two.split, two.sketches) == ("pot", hash_split("x2"), ())
    assert not source.unused
    assert source.notes[0].startswith(
        "columns: file=Image (guessed), caption=Caption (guessed), sketch=sketch"
    )


def test_a_column_of_sketches_replaces_the_match_by_name(tmp_path: Path) -> None:
    write_files(tmp_path, {"p/c1.jpg": b"", "s/c1.png": b"", "s/k7.png": b""})
    rows: list[dict[str, object]] = [{"file": "c1.jpg", "drawn": ["k7.png", "lost.png"], "caption": "x"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = OwnFiles(f"{tmp_path}/p", f"{tmp_path}/s", "sketch=drawn")
    source = open_source(f"table:{tmp_path}/t.jsonl", files)
    assert names(source.entries[0]) == ["k7.png"]
    assert source.unused == {"sketches that a row names and that are missing": 1, "sketches without photo": 1}


def test_a_folder_of_photos_needs_no_table(tmp_path: Path) -> None:
    write_files(
        tmp_path, {"all/a/1.jpg": b"", "all/b/1.jpg": b"", "all/s/a/1-2.png": b"", "all/s/1.png": b""}
    )
    source = open_source(f"folder:{tmp_path}/all")
    assert [entry.photo_id for entry in source.entries] == ["a/1.jpg", "b/1.jpg", "s/1.png", "s/a/1-2.png"]
    assert "next: init_checkpoint.py and embed_gallery.py, which need no training" in source.notes[-1]
    source = open_source(f"folder:{tmp_path}/all", OwnFiles(sketches=f"{tmp_path}/all/s"))
    assert {entry.photo_id: names(entry) for entry in source.entries} == {
        "a/1.jpg": ["1-2.png"],
        "b/1.jpg": [],
    }
    assert source.unused == {"sketches without photo": 1}  # `1.png` fits both photos
    assert "next: caption.py writes captions, then train.py --recipe finetune" in source.notes[-1]


def test_photos_without_sketches_train_the_text_encoder(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ROWS[:2])
    source = open_source(f"table:{tmp_path}/t.csv")
    assert "next: train.py --recipe finetune_text, which needs no sketches" in source.notes[-1]
    assert [(entry.category, entry.class_) for entry in source.entries] == [("unknown", None)] * 2
    assert any(note.startswith("classes: none, as there is one category") for note in source.notes)


def test_a_row_whose_name_two_photos_have_is_not_guessed(tmp_path: Path) -> None:
    write_files(tmp_path, {"p/a/1.jpg": b"", "p/b/1.jpg": b""})
    write_table(tmp_path / "t.csv", [{"file": "1.jpg", "text": "x"}, {"file": "b/1", "text": "y"}])
    source = open_source(f"table:{tmp_path}/t.csv", OwnFiles(f"{tmp_path}/p"))
    assert [entry.text for entry in source.entries] == [None, "y"]
    assert source.unused == {"rows whose file name several photos have": 1}


PART = st.text("ab1", min_size=1, max_size=3)


@given(st.sets(PART, min_size=1, max_size=5), st.lists(PART, min_size=1, max_size=3), st.sampled_from("_-. "))
def test_a_sketch_belongs_to_the_longest_name_before_a_separator(
    stems: set[str], parts: list[str], separator: str
) -> None:
    photos = ImageFolder(Folder("/p"), sorted(f"{stem}.jpg" for stem in stems))
    name = separator.join(parts)
    prefixes = [separator.join(parts[:end]) for end in range(len(parts), 0, -1)]
    expected = next((f"{prefix}.jpg" for prefix in prefixes if prefix in stems), None)
    assert photos.find_prefix(f"s/{name}.png") == expected


@pytest.mark.parametrize(
    ("spec", "files", "message"),
    [
        ("table:{root}/t.csv", OwnFiles(columns="photo=x"), "--columns photo=x: write it as ROLE=COLUMN"),
        ("table:{root}/t.csv", OwnFiles(columns="file"), "--columns file: write it as ROLE=COLUMN"),
        ("table:{root}/t.csv", OwnFiles(columns="file=a,file=b"), "--columns file=b: file is given twice"),
        ("table:{root}/t.csv", OwnFiles(columns="file=zz"), "--columns file=zz: .*t.csv has name, words;"),
        ("table:{root}/t.csv", OwnFiles(), "no column names the photos; give --columns file=, one of name"),
        ("table:{root}/none.csv", OwnFiles(), "not found; check the path"),
        ("table:{root}", OwnFiles(), "give a file that ends with .parquet, .csv, .tsv, .jsonl"),
        ("table:{root}/t.csv", OwnFiles("{root}/none", columns="file=name"), "none/ cannot be listed"),
        ("table:{root}/t.csv", OwnFiles(None, "{root}/e", "file=name"), "--sketches .*: contains no image"),
        ("table:{root}/u.csv", OwnFiles(), "row 1: http://10.0.0.1/x: not one of file, "),
        ("folder:{root}", OwnFiles(photos="x"), "--photos: a folder has none"),
        ("folder:{root}", OwnFiles(columns="file=name"), "--columns: a folder has none"),
        ("folder:{root}/e", OwnFiles(), "contains no photo; check the path"),
        ("synthetic:8", OwnFiles(sketches="x"), "not for synthetic; leave them out"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    tmp_path: Path, spec: str, files: OwnFiles, message: str
) -> None:
    write_files(tmp_path, {"t.csv": "name,words\nc1.jpg,red\n", "u.csv": "file\nhttp://10.0.0.1/x\n"})
    (tmp_path / "e").mkdir()
    values = {key: value and value.replace("{root}", str(tmp_path)) for key, value in vars(files).items()}
    with pytest.raises(InputError, match=message) as error:
        open_source(spec.replace("{root}", str(tmp_path)), OwnFiles(**values))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("document", ["README.md", "docs/own_data.md"])
def test_the_documented_command_takes_all_of_the_data(document: str, tmp_path: Path) -> None:
    """Up to the job on Ray, which tests/cluster runs."""
    write_own_data(tmp_path, 12)
    [command] = [each.text for each in document_commands(document) if "--source table:" in each.text]
    for pattern, path in own_data_replacements(tmp_path).items():
        command = re.sub(pattern, path, command)
    args = parser().parse_args(shlex.split(command)[2:])
    source = open_source(args.source, OwnFiles(args.photos, args.sketches, args.columns))
    assert (len(source.entries), source.unused) == (12, {})
    for entry in source.entries:
        row, faults = validate_entry(entry, source.read, ("sketch", "text"))
        assert row is not None
        assert faults == []

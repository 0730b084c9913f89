import json
import os
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stbir.data.sources.entry import IMAGE_SUFFIXES, Entry, hash_split, stem
from stbir.data.sources.qmul import match_sketches
from stbir.data.sources.registry import open_source
from stbir.data.sources.sketchy import TX
from stbir.data.validation import validate_entry
from stbir.errors import InputError
from stbir.images import PHOTO_FORMATS, register_formats
from stbir.storage import fetch
from tests.data.image_files import png, write_files

CHAIRS = {
    "trainA/a_1.png": b"s1",
    "trainA/a_b_1.png": b"s2",
    "trainA/a_b_AI6TD8.png": b"s3",
    "trainA/orphan_1.png": b"s4",
    "trainB/a.png": b"p1",
    "trainB/a_b.png": b"p2",
    "trainB/c.d-.png": b"p3",
    "testA/t_1.png": b"s5",
    "testB/t.png": b"p4",
    "chair_train.txt": "a.png\tred seat, wheels\nc.d-.png\tblack mesh\n\n",
    "chair_val.txt": "a_b.png\tgreen\nmissing.png\tno photo\n",
    "chair_classes.tsv": "a.png\t21\nt.png\t3\n",
}


def by_stem(entries: list[Entry]) -> dict[str, Entry]:
    return {stem(entry.photo): entry for entry in entries}


def file_names(uris: tuple[str, ...]) -> list[str]:
    return [uri.rpartition("/")[2] for uri in uris]


def test_qmul_lists_photos_with_their_sketches_captions_splits_and_classes(tmp_path: Path) -> None:
    source = open_source(f"qmul:{write_files(tmp_path, CHAIRS)}")
    entries = by_stem(source.entries)
    assert {s: (e.photo_id, e.split, e.text, e.class_) for s, e in entries.items()} == {
        "a": ("chair:a", "train", "red seat, wheels", "21"),
        "a_b": ("chair:a_b", "val", "green", None),
        "c.d-": ("chair:c.d-", "train", "black mesh", None),
        "t": ("chair:t", "test", None, "3"),
    }
    assert {s: file_names(e.sketches) for s, e in entries.items()} == {
        "a": ["a_1.png"],
        "a_b": ["a_b_1.png", "a_b_AI6TD8.png"],
        "c.d-": [],
        "t": ["t_1.png"],
    }
    assert source.read(entries["a_b"].sketches[1]) == b"s3"
    assert source.unused == {"sketches without photo": 1, "captions without photo": 1}


def test_files_that_no_photo_uses_are_counted_by_reason(tmp_path: Path) -> None:
    photos, sketches = f"256x256/photo/{TX}/cat", f"256x256/sketch/{TX}/cat"
    for kind, photo, sketch in (("qmul", "trainB", "trainA"), ("sketchy", photos, sketches)):
        root = tmp_path / kind
        files: dict[str, bytes | str] = {f"{photo}/{n}": b"" for n in ("a.jfif", ".DS_Store", "._a.jfif")}
        files |= {f"{sketch}/{n}": b"" for n in ("a-1.png", "a_1.png", "x.txt", os.fsdecode(b"\xe9.png"))}
        write_files(root, files)
        (root / photo / "b::c#.png").symlink_to(root / photo / "a.jfif")
        source = open_source(f"{kind}:{root}")
        assert sorted(stem(entry.photo) for entry in source.entries) == ["a", "b::c#"]
        assert all(source.read(entry.photo) == b"" for entry in source.entries)
        assert source.unused == {
            "files without an image suffix (.DS_Store)": 1,
            "files without an image suffix (._*)": 1,
            "files without an image suffix (.txt)": 1,
            "names that are not UTF-8": 1,
            "sketches without photo": 1,
        }


def test_files_outside_the_layout_are_counted_by_reason(tmp_path: Path) -> None:
    """Nested folders, other folders, other texts, broken links and pipes: a glob by folder sees none."""
    sketchy, other_tx = f"256x256/photo/{TX}", "256x256/photo/tx_000100000000"
    for kind, photo, nested, other in (
        ("qmul", "trainB/a.png", "trainB/deep/b.png", "valB/c.png"),
        ("sketchy", f"{sketchy}/cat/a.png", f"{sketchy}/cat/deep/b.png", f"{other_tx}/cat/a.png"),
    ):
        root = tmp_path / kind
        texts = ("README.md", ".hidden", "notes.txt", "chair_trian.txt")
        write_files(root, {photo: b"", nested: b"", other: b"", **dict.fromkeys(texts, b"a\tb")})
        (root / photo).with_name("broken.png").symlink_to("nowhere")
        os.mkfifo(root / "pipe")
        source = open_source(f"{kind}:{root}")
        assert [stem(entry.photo) for entry in source.entries] == ["a"]
        other_folder = "valB" if kind == "qmul" else other_tx
        assert source.unused == {
            f"folder not searched ({nested.removesuffix('/b.png')})": 1,
            f"folder not searched ({other_folder})": 1,
            "file outside the layout (.md)": 1,
            "file outside the layout (.hidden)": 1,
            "file outside the layout (.txt)": 2,
            "not a file (.png)": 1,
            "not a file (no suffix)": 1,
        }


def test_a_photo_with_captions_in_two_splits_is_refused(tmp_path: Path) -> None:
    """Its split is unknown. Photos of equal name in two folders take a caption each."""
    captions = {"c_train.txt": "x.png\tone", "c_test.txt": "x.png\ttwo"}
    qmul = write_files(tmp_path / "qmul", {"trainB/x.png": b"", **captions})
    with pytest.raises(InputError, match=r"x has a caption in c_test\.txt and c_train\.txt; keep the line"):
        open_source(f"qmul:{qmul}")
    write_files(qmul, {"testB/x.png": b""})
    assert [entry.split for entry in open_source(f"qmul:{qmul}").entries] == ["train", "test"]
    write_files(qmul, {"c_val.txt": "x.png\tthree"})
    with pytest.raises(InputError, match=r"c_test\.txt and c_train\.txt and c_val\.txt"):
        open_source(f"qmul:{qmul}")
    files = {
        f"256x256/photo/{TX}/cat/x.jpg": b"",
        "captions_train.txt": "cat/x\ta",
        "captions_val.txt": "cat/x\tb",
    }
    with pytest.raises(InputError, match=r"cat/x has a caption in captions_train\.txt and captions_val\.txt"):
        open_source(f"sketchy:{write_files(tmp_path / 'sketchy', files)}")


def test_qmul_reads_a_test_folder_without_a_train_folder(tmp_path: Path) -> None:
    files = {"testA/x_1_1.png": b"s", "testB/x_1.png": b"p", "shoe_test.txt": "x_1.png\tblue boot"}
    (entry,) = open_source(f"qmul:{write_files(tmp_path, files)}").entries
    assert (entry.photo_id, entry.split, entry.text, entry.class_) == ("shoe:x_1", "test", "blue boot", None)
    assert file_names(entry.sketches) == ["x_1_1.png"]


def test_qmul_uses_the_folder_name_as_category_without_a_caption_file(tmp_path: Path) -> None:
    (entry,) = open_source(f"qmul:{write_files(tmp_path / 'Stools', {'trainB/x.jpg': b''})}").entries
    assert (entry.category, entry.split, entry.text) == ("Stools", "train", None)


def test_qmul_photos_of_equal_name_in_two_folders_have_their_own_captions(tmp_path: Path) -> None:
    files = {"trainB/x.png": b"", "testB/x.png": b"", "c_train.txt": "x.png\tone", "c_test.txt": "x.png\ttwo"}
    entries = open_source(f"qmul:{write_files(tmp_path, files)}").entries
    assert [(e.split, e.text) for e in entries] == [("train", "one"), ("test", "two")]


STEMS = st.lists(st.sampled_from(["a", "b", "1"]), min_size=1, max_size=4).map("_".join)


@given(st.lists(STEMS, unique=True, max_size=6), st.lists(STEMS, unique=True, max_size=12))
def test_a_sketch_belongs_to_the_photo_with_the_longest_prefix_stem(
    photos: list[str], sketches: list[str]
) -> None:
    expected: dict[str, list[str]] = {photo: [] for photo in photos}
    num_unmatched = 0
    for sketch in sketches:
        candidates = [photo for photo in photos if sketch == photo or sketch.startswith(photo + "_")]
        if candidates:
            expected[max(candidates, key=len)].append(f"{sketch}.png")
        else:
            num_unmatched += 1
    assert match_sketches(photos, [f"{sketch}.png" for sketch in sketches]) == (expected, num_unmatched)


def test_sketchy_lists_photos_with_category_as_class(tmp_path: Path) -> None:
    files = {
        f"256x256/photo/{TX}/cat/n1_5.jpg": b"p",
        f"256x256/photo/{TX}/dog/n1_5.jpg": b"q",
        f"256x256/sketch/{TX}/cat/n1_5-1.png": b"s",
        f"256x256/sketch/{TX}/cat/n1_5-2.png": b"t",
        f"256x256/sketch/{TX}/cat/n9-1.png": b"u",
        "captions.txt": f"{TX}/cat/n1_5.jpg\tginger cat\n",
        "captions_test.txt": f"{TX}/dog/n1_5.jpg\tblack dog\n",
    }
    source = open_source(f"sketchy:{write_files(tmp_path, files)}")
    cat, dog = source.entries
    assert (cat.photo_id, cat.category, cat.class_) == ("sketchy:cat/n1_5", "cat", "cat")
    assert cat.text == "ginger cat"
    assert (cat.split, file_names(cat.sketches)) == (hash_split("cat/n1_5"), ["n1_5-1.png", "n1_5-2.png"])
    assert (dog.photo_id, dog.split, dog.text, dog.sketches) == ("sketchy:dog/n1_5", "test", "black dog", ())
    assert source.unused == {"sketches without photo": 1}


def test_the_hash_split_is_about_80_10_10_and_stable() -> None:
    keys = [f"cat/n{i}" for i in range(2000)]
    counts = Counter(map(hash_split, keys))
    assert counts == pytest.approx({"train": 1600, "val": 200, "test": 200}, abs=60)
    assert [hash_split(f"cat/n{n}") for n in (0, 6, 18)] == ["train", "test", "val"]


LINE = {
    "id": "x:1",
    "split": "val",
    "category": "x",
    "photo": "1.jpg",
    "sketches": ["s/1.png"],
    "text": "red",
}


def test_manifest_lines_become_entries_with_paths_relative_to_the_file(tmp_path: Path) -> None:
    other = {"id": "x:2", "photo": "s3://b/2.jpg", "sketches": [], "text": None, "class": "7", "unknown": 1}
    lines = "\n".join(json.dumps(LINE | line) for line in ({}, other)) + "\n\n"
    write_files(tmp_path, {"manifest.jsonl": lines, "1.jpg": b"photo"})
    for path in (tmp_path, tmp_path / "manifest.jsonl"):
        source = open_source(f"manifest:{path}")
        one, two = source.entries
        assert source.read(one.photo) == b"photo"
        assert (one.photo_id, one.split, one.text, one.class_) == ("x:1", "val", "red", None)
        assert (two.photo, two.sketches, two.text, two.class_) == ("s3://b/2.jpg", (), None, "7")


def test_files_of_a_manifest_are_read_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in the network of the job, a device that never ends, and a pipe that blocks."""
    monkeypatch.setattr(fetch, "MAX_BYTES", 2**20)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(2**20 + 1))
    for name, reason in {"pipe": "photo missing", "large": "photo does not decode"}.items():
        write_files(tmp_path, {"manifest.jsonl": json.dumps(LINE | {"photo": name, "sketches": []})})
        source = open_source(f"manifest:{tmp_path}")
        row, [fault] = validate_entry(source.entries[0], source.read, ())
        assert (row, fault.reason) == (None, reason)
    write_files(tmp_path, {"manifest.jsonl": json.dumps(LINE | {"sketches": ["HTTP://10.0.0.1/x.png"]})})
    with pytest.raises(InputError, match=r"manifest\.jsonl:1: http://10\.0\.0\.1/x\.png: not one of file, "):
        open_source(f"manifest:{tmp_path}")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ({k: v for k, v in LINE.items() if k != "photo"}, "photo"),
        ({**LINE, "sketches": "s/1.png"}, "sketches"),
        ({**LINE, "id": 7}, "id"),
        ({**LINE, "split": ""}, "split"),
        ("{not json", "line"),
        ("[1, 2]", "line"),
    ],
)
def test_an_invalid_manifest_line_is_refused_with_file_number_and_key(
    tmp_path: Path, line: dict[str, object] | str, key: str
) -> None:
    invalid = line if isinstance(line, str) else json.dumps(line)
    write_files(tmp_path, {"manifest.jsonl": f"{json.dumps(LINE)}\n{invalid}\n"})
    with pytest.raises(InputError, match=rf"manifest\.jsonl:2: {key}: ") as error:
        open_source(f"manifest:{tmp_path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("holiday:/x", "KIND one of table, folder, qmul, sketchy, manifest, synthetic"),
        ("qmul", "write it as KIND:PATH"),
        ("qmul:", "write it as KIND:PATH"),
        ("qmul:{empty}", "no photo in trainB/ or testB/"),
        ("qmul:{empty}/nowhere", "no photo in trainB/ or testB/"),
        ("sketchy:{empty}", "no photo in 256x256/photo"),
        ("manifest:{empty}", r"not found; give a \.jsonl file"),
        ("manifest:{empty}/blank.jsonl", "contains no photo"),
        ("synthetic:many", "write it as synthetic:PHOTOS"),
        ("synthetic:0", "contains no photo"),
    ],
)
def test_an_invalid_source_is_refused_in_one_line(tmp_path: Path, spec: str, message: str) -> None:
    write_files(tmp_path, {"blank.jsonl": "\n"})
    with pytest.raises(InputError, match=message) as error:
        open_source(spec.replace("{empty}", str(tmp_path)))
    assert "\n" not in str(error.value)


def test_a_repeated_caption_or_class_is_counted_and_the_first_stays(tmp_path: Path) -> None:
    chairs = {"trainB/a.png": b"", "c_train.txt": "a.png\tred\na.jpg\tblue\n"}
    classes = {"a_classes.tsv": "a\t1\n", "b_classes.tsv": "a.png\t2\n"}
    source = open_source(f"qmul:{write_files(tmp_path / 'qmul', {**chairs, **classes})}")
    assert [(entry.text, entry.class_) for entry in source.entries] == [("red", "1")]
    assert source.unused == {"repeated captions": 1, "repeated classes": 1}
    texts = {"captions.txt": "cat/a\tred", "captions_test.txt": "cat/a\tblue\ncat/a\told"}
    files = {f"256x256/photo/{TX}/cat/a.jpg": b"", **texts}
    source = open_source(f"sketchy:{write_files(tmp_path / 'sketchy', files)}")
    assert [(entry.text, entry.split) for entry in source.entries] == [("red", "test")]
    assert source.unused == {"repeated captions": 2}


def test_each_suffix_of_a_photo_format_is_one_of_an_image() -> None:
    register_formats()
    formats = Image.registered_extensions().items()
    assert {suffix for suffix, name in formats if name in PHOTO_FORMATS} <= {*IMAGE_SUFFIXES}


def test_a_caption_line_without_a_tab_is_refused_with_its_number(tmp_path: Path) -> None:
    write_files(tmp_path, {**CHAIRS, "chair_val.txt": "a_b.png\tgreen\na.png red\n"})
    with pytest.raises(InputError, match=r"chair_val\.txt:2: no tab"):
        open_source(f"qmul:{tmp_path}")


def test_sources_open_at_s3(s3: str) -> None:
    folder = f"{s3}/sources/chairs"
    files = {"trainA/a_1.png": png(), "trainB/a.png": png(9), "chair_train.txt": b"a.png\tred"}
    files |= dict.fromkeys(("trainB/deep/er/b.png", "trainB//c.png", "x/y.png", "README.md"), b"")
    for name, data in files.items():
        with fsspec.open(f"{folder}/{name}", "wb") as file:
            file.write(data)
    source = open_source(f"qmul:{folder}")
    (entry,) = source.entries
    assert (entry.photo, entry.text) == (f"{folder}/trainB/a.png", "red")
    assert source.unused == {
        "folder not searched (trainB/deep)": 1,
        "file outside the layout (.png)": 1,
        "folder not searched (x)": 1,
        "file outside the layout (.md)": 1,
    }
    assert source.read(entry.photo) == png(9)
    assert source.read(entry.sketches[0]) == png()
    with pytest.raises(InputError) as error:
        source.read(f"{folder}/trainB/missing.png")
    assert isinstance(error.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize(
    ("spec", "photos", "sketches", "splits"),
    [
        ("qmul:{}/ChairV2", 300, 964, {"train", "val"}),
        ("manifest:{}/ShoeV1", 304, 932, {"train"}),
        ("manifest:{}/ShoeV2_photos", 1800, 0, {"train", "val"}),
        ("sketchy:{}/Sketchy", 432, 2325, {"train", "val", "test"}),
    ],
)
def test_the_real_data_sets_are_listed_completely(
    data_root: Path, spec: str, photos: int, sketches: int, splits: set[str]
) -> None:
    source = open_source(spec.format(data_root))
    assert len(source.entries) == len({e.photo_id for e in source.entries}) == photos
    assert sum(len(entry.sketches) for entry in source.entries) == sketches
    assert {entry.split for entry in source.entries} == splits
    assert all(entry.text for entry in source.entries)
    assert not source.unused
    if spec.startswith("qmul"):
        assert all(all(entry.strokes) for entry in source.entries if entry.sketches)

"""Tar files: the list of members is complete, or the file is refused with the offset of the damage."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbir.catalogue.photo import Photo
from stbir.catalogue.registry import open_catalogue
from stbir.catalogue.tar_file import read_members
from stbir.data.validation import Fault
from stbir.errors import InputError
from tests.catalogue.test_catalogue import read_all, to_json, write_tar
from tests.data.image_files import png

BLOCK = tarfile.BLOCKSIZE


def tar_bytes(num_files: int = 4) -> bytes:
    """Each member has a header block and one block of data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(num_files):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = 100
            tar.addfile(info, io.BytesIO(bytes([number + 1]) * 100))
    return buffer.getvalue()


TAR = tar_bytes()
END = 8 * BLOCK  # of the members


def names(data: bytes) -> list[str]:
    return [member.name for member in read_members(io.BytesIO(data), "x.tar")]


def test_a_complete_tar_lists_all_members() -> None:
    assert names(TAR) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert names(TAR[: END + 2 * BLOCK]) == names(TAR)  # the padding is optional


@given(st.integers(0, END + 2 * BLOCK - 1))
def test_a_tar_that_is_cut_anywhere_is_refused_with_an_offset(length: int) -> None:
    with pytest.raises(InputError, match=r"x\.tar: not a complete tar file: .* at byte \d+; write"):
        names(TAR[:length])


# The last byte of the checksum's field, after its terminator, means nothing.
@given(
    st.integers(0, 3), st.integers(0, BLOCK - 1).filter(lambda position: position != 155), st.integers(1, 255)
)
def test_a_damaged_header_is_refused_with_its_offset(member: int, position: int, change: int) -> None:
    data = bytearray(TAR)
    data[2 * member * BLOCK + position] ^= change
    with pytest.raises(InputError, match=f"at byte {2 * member * BLOCK};"):
        names(bytes(data))


def test_a_header_of_zeros_does_not_end_the_list() -> None:
    with pytest.raises(InputError, match=f"no valid header at byte {2 * BLOCK}"):
        names(TAR[: 2 * BLOCK] + bytes(BLOCK) + TAR[3 * BLOCK :])
    with pytest.raises(InputError, match=f"data follows the end marker at byte {2 * BLOCK}"):
        names(TAR[: 2 * BLOCK] + bytes(2 * BLOCK) + TAR[4 * BLOCK :])


def test_concatenated_tars_are_refused() -> None:
    with pytest.raises(InputError, match=f"data follows the end marker at byte {END}"):
        names(TAR + TAR)


def test_a_damaged_tar_that_is_not_the_first_ends_the_listing(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", {f"{n}.png": png(n) for n in range(4)})
    data = (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(data[: 4 * BLOCK])
    with pytest.raises(InputError, match=rf"1\.tar: .* at byte {4 * BLOCK}"):
        list(open_catalogue(f"webdataset:{tmp_path}").parts())


def test_a_sample_with_several_images_takes_the_plain_one_or_none(tmp_path: Path) -> None:
    files = {"0.depth.png": png(1), "0.jpg": png(2), "1.left.png": png(3), "1.right.png": png(4)}
    files |= {"2.jpg": png(5), "2.png": png(6), "3.rgb.png": png(7), "3.json": to_json(category="cup")}
    write_tar(tmp_path / "x.tar", files)
    items = {item.photo_id: item for item in read_all(open_catalogue(f"webdataset:{tmp_path}/x.tar"))}
    assert items["x/0"] == Photo("x/0", "unknown", (), png(2))
    assert items["x/3"] == Photo("x/3", "cup", (), png(7))
    for key, detail in {"x/1": "1.left.png, 1.right.png", "x/2": "2.jpg, 2.png"}.items():
        fault = items[key]
        assert isinstance(fault, Fault)
        assert (fault.reason, fault.detail) == ("several pictures in the sample", detail)


def test_metadata_that_is_repeated_or_apart_from_its_image_is_a_fault(tmp_path: Path) -> None:
    files = {"0.png": png(1), "0.json": to_json(n=1), "0.JSON": to_json(n=2)}
    files |= {"1.png": png(2), "2.png": png(3), "2.json": to_json(n=3), "1.json": to_json(n=4)}
    write_tar(tmp_path / "x.tar", files)
    repeated, one, two, apart = read_all(open_catalogue(f"webdataset:{tmp_path}/x.tar"))
    assert isinstance(repeated, Fault)
    assert isinstance(apart, Fault)
    assert (repeated.reason, repeated.detail) == ("several .json in the sample", "0.json, 0.JSON")
    assert (apart.photo_id, apart.reason) == ("x/1", "members are not adjacent")
    assert (one.photo_id, two) == ("x/1", Photo("x/2", "unknown", (3,), png(3)))


def test_a_linked_image_and_a_name_that_is_not_utf8_are_faults(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name, kind in (
            ("0.png", tarfile.REGTYPE),
            ("1.png", tarfile.LNKTYPE),
            ("é.png", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "0.png" if kind == tarfile.LNKTYPE else ""
            info.size = len(png()) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(png()))
    _, link, name = read_all(open_catalogue(f"webdataset:{tmp_path}/x.tar"))
    assert isinstance(link, Fault)
    assert isinstance(name, Fault)
    assert (link.reason, link.detail) == ("picture is not a plain file", "1.png is a link or sparse")
    assert (name.photo_id, name.reason) == (r"x/\udce9", "name is not UTF-8")

import os
import struct
import zipfile
from pathlib import Path

import pytest

from ichtune.data import archives
from ichtune.data.archives import Archive, ZipMember, list_members, read_head, read_member
from ichtune.errors import DataError

MAX_BYTES = 1 << 20
CONTENTS = {"a.dcm": b"stored " * 40, "inner/b.dcm": bytes(range(256)) * 40, "empty.dcm": b""}


def write_zip(path: Path, compression: int = zipfile.ZIP_DEFLATED, contents: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, data in (CONTENTS if contents is None else contents).items():
            made.writestr(name, data)
    return path


def listed(path: Path) -> dict[str, tuple[int, ZipMember]]:
    about = path.stat()
    archive = Archive(path.name, about.st_size, about.st_mtime_ns)
    return {name: (size, member) for name, size, member in list_members(path, archive)}


def contents_of(path: Path) -> dict[str, bytes]:
    return {name: read_member(path.parent, member, size, MAX_BYTES) for name, (size, member) in listed(path).items()}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_read_in_place(tmp_path, compression):
    assert contents_of(write_zip(tmp_path / "a.zip", compression)) == CONTENTS


def test_the_listing_is_that_of_zipfile(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as made:
        made.comment = b"a comment"
        made.mkdir("folder")
    with zipfile.ZipFile(path) as made:
        expected = [(i.filename, i.file_size, i.header_offset, i.CRC) for i in made.infolist() if not i.is_dir()]
    found = [(name, size, member.offset, member.crc) for name, (size, member) in listed(path).items()]
    assert found == expected


def test_a_comment_may_look_like_an_end_record_and_bytes_may_follow(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as made:
        made.comment = b"PK\5\6 looks like an end record" * 3
    assert contents_of(path) == CONTENTS
    write_zip(path)
    path.write_bytes(path.read_bytes() + bytes(100))
    assert contents_of(path) == CONTENTS


def test_the_head_of_a_member_is_read_without_the_rest(tmp_path):
    path = write_zip(tmp_path / "a.zip", contents={"long.dcm": os.urandom(100_000)})
    _, member = listed(path)["long.dcm"]
    with zipfile.ZipFile(path) as made:
        assert read_head(tmp_path, member, 256) == made.read("long.dcm")[:256]


def test_bytes_before_an_archive_shift_it_only(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    path.write_bytes(b"#!/bin/sh unpack me\n" + path.read_bytes())
    assert contents_of(path) == CONTENTS


def test_zip64_fields_and_records_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = write_zip(tmp_path / "a.zip")
    assert b"PK\6\6" in path.read_bytes()
    assert contents_of(path) == CONTENTS


def test_a_local_header_with_a_long_extra_field_is_read(tmp_path):
    info = zipfile.ZipInfo("a.dcm")
    info.extra = struct.pack("<HH", 0xCAFE, 5000) + bytes(5000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(info, b"content")
        made.writestr("z.dcm", b"last")
    assert contents_of(tmp_path / "a.zip") == {"a.dcm": b"content", "z.dcm": b"last"}


def test_names_that_are_no_text_keep_their_bytes(tmp_path):
    path = write_zip(tmp_path / "a.zip", contents={"XX.dcm": b"1", "sch\u00e4del\n.dcm": b"2"})
    path.write_bytes(path.read_bytes().replace(b"XX.dcm", b"\xff\xfe.dcm"))
    assert set(listed(path)) == {os.fsdecode(b"\xff\xfe.dcm"), "sch\u00e4del\n.dcm"}


def test_damaged_content_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="unreadable_file: damaged in its zip archive, its CRC-32 differs"):
        contents_of(path)


def test_damaged_deflate_data_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", contents={"a.dcm": bytes(range(256)) * 40})
    data = path.read_bytes()
    path.write_bytes(data[:35] + b"\xff" * 20 + data[55:])
    with pytest.raises(DataError, match="unreadable_file: damaged in its zip archive"):
        contents_of(path)


def test_content_longer_than_listed_does_not_inflate(tmp_path):
    path = write_zip(tmp_path / "a.zip", contents={"bomb.dcm": bytes(5_000_000)})
    size, member = listed(path)["bomb.dcm"]
    assert size == 5_000_000
    with pytest.raises(DataError, match="unreadable_file: larger than 1 MiB"):
        read_member(tmp_path, member, size, MAX_BYTES)
    with pytest.raises(DataError, match="unreadable_file: damaged in its zip archive, 1001 of 1000 bytes"):
        read_member(tmp_path, member, 1000, MAX_BYTES)


def test_a_size_that_no_deflated_data_can_have_gets_no_memory(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", contents={"a.dcm": bytes(1000)})
    size, member = listed(path)["a.dcm"]
    monkeypatch.setattr(archives, "_inflate", lambda *_, **__: pytest.fail("memory was asked for"))
    with pytest.raises(DataError, match="1000 of 900000 bytes"):
        read_member(tmp_path, member, 900_000, MAX_BYTES)
    with pytest.raises(pytest.fail.Exception):
        read_member(tmp_path, member, size, MAX_BYTES)


def test_encrypted_members_and_other_methods_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", zipfile.ZIP_LZMA, {"a.dcm": b"content"})
    with pytest.raises(DataError, match="unreadable_file: compressed in its zip archive by method 14"):
        contents_of(path)
    data = bytearray(write_zip(path).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="unreadable_file: encrypted"):
        contents_of(path)


def test_an_archive_that_changed_since_it_was_listed_counts_as_gone(tmp_path):
    path = write_zip(tmp_path / "a.zip")
    size, member = listed(path)["a.dcm"]
    os.utime(path, ns=(1, 1))
    with pytest.raises(FileNotFoundError, match="no longer"):
        read_member(tmp_path, member, size, MAX_BYTES)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_member(tmp_path, member, size, MAX_BYTES)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "no zip archive, or one that is cut short"),
        (lambda data: data[:-30], "no zip archive, or one that is cut short"),
        (lambda data: data.replace(b"PK\1\2", b"PK\1\3", 1), "ends after 0 files"),
        (lambda data: data[:-12] + b"\2\0" + data[-10:], "2 files listed and 3 found"),
        (lambda data: data[:-10] + struct.pack("<L", 10_000_000) + data[-6:], "lies outside of the file"),
        (lambda data: data[:-18] + b"\1\0" + data[-16:], "split zip archive"),
    ],
)
def test_a_damaged_archive_is_an_error(tmp_path, damage, message):
    path = write_zip(tmp_path / "a.zip")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"unreadable_file: .*{message}"):
        listed(path)


def test_every_cut_and_every_flipped_byte_gives_content_or_a_reason(tmp_path):
    whole = write_zip(tmp_path / "a.zip", contents={"a.dcm": b"some content", "b.dcm": bytes(30)}).read_bytes()
    good = contents_of(tmp_path / "a.zip")
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :] for i in range(len(whole))]
    n_read = n_refused = 0
    for data in damaged:
        (tmp_path / "a.zip").write_bytes(data)
        try:
            found = contents_of(tmp_path / "a.zip")
        except DataError as error:
            n_refused += str(error).startswith("unreadable_file: ")
        else:
            n_read += 1
            assert set(found.values()) <= set(good.values())
    assert n_read + n_refused == len(damaged)
    assert n_refused > len(whole)

import errno
import os
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ichtune.data import source_files
from ichtune.data.cache.build import CacheSpec, build_cache
from ichtune.data.source_files import SourceFile, find_files, read_ahead, read_source, readable_path, state_hash
from ichtune.errors import DataError, NothingUsableError, StorageError


def names(folder, **options) -> list[str]:
    return [file.path for file in find_files(folder, **options).files]


def test_files_are_found_by_name_or_by_content_in_path_order(tmp_path, write_slice):
    for path in ("b/z.dcm", "b/a.DCM", "a", "c/IM_0001", "deep/er/x.ima", "odd\nname"):
        write_slice(tmp_path / path)
    (tmp_path / "broken.dcm").write_text("no DICOM")
    for path in ("labels.csv", "phantom.json", "LICENSE", ".hidden.dcm", "DICOMDIR", "picture.png"):
        (tmp_path / path).write_text("something else " * 20)
    found = find_files(tmp_path)
    assert names(tmp_path) == [
        "a",
        "b/a.DCM",
        "b/z.dcm",
        "broken.dcm",
        "c/IM_0001",
        "deep/er/x.ima",
        "odd\nname",
    ]
    assert found.n_ignored == 6


def test_no_name_hides_a_dicom_file(tmp_path, write_slice):
    paths = [".hidden.dcm", "report.html", "scan.1.md", "slice.csv"]
    for path in paths:
        write_slice(tmp_path / path)
    assert names(tmp_path) == paths
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in paths:
            archive.write(tmp_path / path, path)
    assert [file.path for file in find_files(tmp_path / "all.zip").files] == [f"all.zip!/{path}" for path in paths]


def test_a_workspace_inside_the_folder_is_left_out(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm")
    write_slice(tmp_path / "work" / "b.dcm")
    assert names(tmp_path, leave_out=tmp_path / "work") == ["a.dcm"]


def test_linked_folders_are_followed_and_loops_end(tmp_path, write_slice):
    write_slice(tmp_path / "real" / "a.dcm")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    assert names(tmp_path / "source") == ["link/a.dcm"]


def test_a_pipe_is_not_waited_for(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm")
    os.mkfifo(tmp_path / "pipe.dcm")
    assert names(tmp_path) == ["a.dcm"]


@pytest.mark.parametrize("files", [(), ("labels.csv", "notes.txt")])
def test_nothing_to_read_is_an_error(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text("text")
    with pytest.raises(NothingUsableError, match="DICOM"):
        find_files(tmp_path)


def test_a_missing_folder_or_a_file_is_an_error(tmp_path, write_slice):
    with pytest.raises(DataError, match="does not exist"):
        find_files(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a file"):
        find_files(write_slice(tmp_path / "a.dcm"))


def make_zip(path, write_slice, *names: str, **others: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    one = write_slice(path.parent / ".one.dcm")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.write(one, name)
        for name, data in others.items():
            made.writestr(name.replace("__", "."), data)
    one.unlink()
    return path


def test_archives_are_listed_and_read_in_place(tmp_path, write_slice):
    write_slice(tmp_path / "sub" / "plain.dcm")
    names_in = ("inner/b.dcm", "inner/IM_0001", "DICOMDIR", "__MACOSX/inner/b.dcm", "inner/._b.dcm")
    make_zip(tmp_path / "sub" / "a.ZIP", write_slice, *names_in, labels__csv=b"ID,Label", notes__txt=b"text " * 99)
    found = find_files(tmp_path)
    assert [file.path for file in found.files] == [
        "sub/a.ZIP!/inner/IM_0001",
        "sub/a.ZIP!/inner/b.dcm",
        "sub/plain.dcm",
    ]
    assert found.n_ignored == 5
    one, two, plain = (read_source(tmp_path, file) for file in found.files)
    assert one == two
    assert plain == (tmp_path / "sub" / "plain.dcm").read_bytes()
    assert [file.size_bytes for file in found.files] == [len(one), len(two), len(plain)]


def test_one_archive_may_be_all_there_is(tmp_path, write_slice):
    path = make_zip(tmp_path / "rsna.zip", write_slice, "x/a.dcm", "x/b.dcm")
    found = find_files(path)
    assert [file.path for file in found.files] == ["rsna.zip!/x/a.dcm", "rsna.zip!/x/b.dcm"]
    assert read_source(found.folder, found.files[0])[128:132] == b"DICM"
    with pytest.raises(NothingUsableError, match="holds 1 files, none of them DICOM"):
        find_files(make_zip(tmp_path / "other.zip", write_slice, labels__csv=b"ID"))


def test_a_damaged_archive_is_a_row_in_a_folder_and_an_error_alone(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm")
    (tmp_path / "b.zip").write_bytes(make_zip(tmp_path / "c.zip", write_slice, "x.dcm").read_bytes()[:-40])
    found = find_files(tmp_path).files
    assert [file.path for file in found] == ["a.dcm", "b.zip", "c.zip!/x.dcm"]
    with pytest.raises(DataError, match=r"unreadable_file: .*cut short"):
        read_source(tmp_path, found[1])
    with pytest.raises(DataError, match=r"b\.zip: no zip archive, or one that is cut short"):
        find_files(tmp_path / "b.zip")


def test_an_archive_in_an_archive_is_a_row(tmp_path, write_slice):
    inner = make_zip(tmp_path / "in" / "inner.zip", write_slice, "x.dcm")
    make_zip(tmp_path / "outer.zip", write_slice, "a.dcm", inner__zip=inner.read_bytes())
    files = find_files(tmp_path / "outer.zip").files
    assert [file.path for file in files] == ["outer.zip!/a.dcm", "outer.zip!/inner.zip"]
    with pytest.raises(DataError, match="unreadable_file: a zip archive in a zip archive"):
        read_source(tmp_path, files[1])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_path_is_there_once(tmp_path, write_slice):
    make_zip(tmp_path / "a.zip", write_slice, "x.dcm", "x.dcm", "x.dcm", "x.dcm~2")
    write_slice(tmp_path / "a.zip!" / "x.dcm")
    assert names(tmp_path) == [
        "a.zip!/x.dcm",
        "a.zip!/x.dcm~2",
        "a.zip!/x.dcm~3",
        "a.zip!/x.dcm~4",
        "a.zip!/x.dcm~5",
    ]
    assert len({read_source(tmp_path, file) for file in find_files(tmp_path).files}) == 2


def test_a_link_to_nothing_a_folder_and_a_grown_file_are_read_for_what_they_are(tmp_path, write_slice):
    path = write_slice(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").symlink_to(tmp_path / "nowhere")
    one, two = find_files(tmp_path).files
    path.write_bytes(path.read_bytes() + b"more")
    assert read_source(tmp_path, one) == path.read_bytes()
    with pytest.raises(DataError, match="unreadable_file: a link to a file that is not there"):
        read_source(tmp_path, two)
    with pytest.raises(DataError, match="unreadable_file: Is a directory"):
        read_source(tmp_path.parent, SourceFile(tmp_path.name, 0, 0))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path, one)


def test_reading_ahead_changes_nothing_and_never_fails(tmp_path, write_slice):
    path = write_slice(tmp_path / "a.dcm")
    make_zip(tmp_path / "b.zip", write_slice, "x.dcm")
    os.mkfifo(tmp_path / "pipe")
    files = find_files(tmp_path).files
    before = [read_source(tmp_path, file) for file in files]
    for file in (*files, SourceFile("pipe", 0, 0), SourceFile("nowhere.dcm", 0, 0), SourceFile("a\0", 0, 0)):
        read_ahead(tmp_path, file)
    assert [read_source(tmp_path, file) for file in files] == before
    assert before[0] == path.read_bytes()


def test_a_file_larger_than_any_slice_is_not_read(tmp_path, write_slice, monkeypatch):
    write_slice(tmp_path / "a.dcm")
    monkeypatch.setattr(source_files, "MAX_FILE_BYTES", 100)
    with pytest.raises(DataError, match="unreadable_file: larger than"):
        read_source(tmp_path, find_files(tmp_path).files[0])


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.ENFILE])
def test_a_share_that_is_gone_refuses_no_file(tmp_path, write_slice, monkeypatch, number):
    def fail(*args, **options):
        raise OSError(number, os.strerror(number))

    write_slice(tmp_path / "a.dcm")
    file = find_files(tmp_path).files[0]
    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(StorageError, match="run the same command again"):
        read_source(tmp_path, file)


def test_the_state_changes_with_any_file(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm")
    path = write_slice(tmp_path / "b.dcm")
    before = state_hash(find_files(tmp_path).files)
    assert state_hash(find_files(tmp_path).files) == before
    os.utime(path, ns=(0, 1))
    touched = state_hash(find_files(tmp_path).files)
    path.rename(tmp_path / "c.dcm")
    assert len({before, touched, state_hash(find_files(tmp_path).files)}) == 3


def test_the_state_of_an_archive_is_that_of_its_content(tmp_path, write_slice):
    path = make_zip(tmp_path / "a.zip", write_slice, "x.dcm")
    before = state_hash(find_files(path).files)
    os.utime(path, ns=(1, 1))
    assert state_hash(find_files(path).files) == before
    make_zip(path, write_slice, "x.dcm")  # another SOP instance
    assert state_hash(find_files(path).files) != before


def test_a_name_that_is_no_text_can_be_written_to_a_table():
    assert readable_path(os.fsdecode(b"bad\xffname.dcm")) == "bad\\xffname.dcm"
    assert readable_path("sch\u00e4del a.dcm") == "sch\u00e4del a.dcm"
    assert readable_path("a\nb\tc\u202e.dcm") == "a\\nb\\tc\\u{202e}.dcm"


@given(st.lists(st.text(st.sampled_from("a\\nx\n\t\u00a0\udca0\udcff{}u0f")), min_size=2, max_size=2, unique=True))
def test_two_names_never_become_one(paths):
    one, two = map(readable_path, paths)
    assert one != two
    assert one.isprintable()
    assert one.encode().decode() == one


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_every_odd_file_and_archive_becomes_rows_that_say_what_they_are(tmp_path, write_slice):
    folder = tmp_path / "in"
    odd = [
        "line\nbreak.dcm",
        "tab\t.dcm",
        "back\\slash.dcm",
        "IM_0001",
        "deep/er/sch\u00e4del",
        os.fsdecode(b"\xff\xfe.dcm"),
    ]
    for number, name in enumerate(odd):
        write_slice(folder / name, SOPInstanceUID=f"1.2.{number}")
    one = write_slice(tmp_path / "one.dcm", SOPInstanceUID="1.2.99")
    with zipfile.ZipFile(folder / "deep" / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.write(one, "in\nner/IM")
        made.write(one, "twice.dcm")
        made.write(one, "twice.dcm")
        made.writestr("__MACOSX/._twice.dcm", b"icon")
        made.writestr("no.dcm", b"no DICOM")
        made.writestr("inner.zip", b"PK")
    (folder / "broken.zip").write_bytes(b"PK\3\4 cut short")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    write_slice(tmp_path / "elsewhere" / "linked.dcm")
    for name in ("DICOMDIR", "._IM_0001", "notes.txt"):
        (folder / name).write_text("something else")
    found = find_files(folder)
    rows = build_cache(found, tmp_path / "hu", CacheSpec(8)).rows
    reasons = dict(zip(rows["path"], rows["reason"].str.split(":").str[0], strict=True))
    assert reasons == {
        "IM_0001": "",
        "back\\\\slash.dcm": "",
        "broken.zip": "unreadable_file",
        "deep/a.zip!/in\\nner/IM": "",
        "deep/a.zip!/inner.zip": "unreadable_file",
        "deep/a.zip!/no.dcm": "not_dicom",
        "deep/a.zip!/twice.dcm": "",
        "deep/a.zip!/twice.dcm~2": "",
        "deep/er/sch\u00e4del": "",
        "line\\nbreak.dcm": "",
        "link/linked.dcm": "",
        "tab\\t.dcm": "",
        "\\xff\\xfe.dcm": "",
    }
    assert found.n_ignored == 4
    again = build_cache(find_files(folder), tmp_path / "hu", CacheSpec(8))
    assert again.is_reused

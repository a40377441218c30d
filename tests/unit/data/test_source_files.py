import os

import pytest

from ichtune.data.source_files import find_files, readable_path, state_hash
from ichtune.errors import DataError, NothingUsableError


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


def test_the_state_changes_with_any_file(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm")
    path = write_slice(tmp_path / "b.dcm")
    before = state_hash(find_files(tmp_path).files)
    assert state_hash(find_files(tmp_path).files) == before
    os.utime(path, ns=(0, 1))
    touched = state_hash(find_files(tmp_path).files)
    path.rename(tmp_path / "c.dcm")
    assert len({before, touched, state_hash(find_files(tmp_path).files)}) == 3


def test_a_name_that_is_no_text_can_be_written_to_a_table():
    assert readable_path(os.fsdecode(b"bad\xffname.dcm")) == "bad\\xffname.dcm"
    assert readable_path("sch\u00e4del.dcm") == "sch\u00e4del.dcm"

from pathlib import Path

import pytest

from ichtune.errors import StorageError
from ichtune.report.whole_folder import beside, whole_folder

FULL = OSError(28, "No space left on device")


@pytest.fixture
def old(tmp_path):
    """A folder that was written before."""
    folder = tmp_path / "place" / "out"
    folder.mkdir(parents=True)
    (folder / "file").write_text("old", encoding="utf-8")
    return folder


def write(folder, text="new", error=None):
    with whole_folder(folder, "bundle") as made:
        (made / "file").write_text(text, encoding="utf-8")
        if error is not None:
            raise error


def test_it_takes_the_place_of_the_old_one(old):
    write(old)
    assert (old / "file").read_text(encoding="utf-8") == "new"
    assert list(old.parent.iterdir()) == [old]


def test_it_makes_the_folders_on_the_way(tmp_path):
    write(tmp_path / "a" / "b" / "out")
    assert (tmp_path / "a" / "b" / "out" / "file").is_file()


def expected(error):
    return StorageError if isinstance(error, OSError) else KeyboardInterrupt


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_what_fails_leaves_nothing_and_the_old_one_as_it_was(old, error):
    with pytest.raises(expected(error)):
        write(old, error=error)
    with pytest.raises(expected(error)):
        write(old.with_name("other"), error=error)
    assert (old / "file").read_text(encoding="utf-8") == "old"
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_the_old_one_comes_back_where_the_new_one_cannot_take_its_name(old, monkeypatch, error):
    rename = Path.rename

    def fail(self, target):
        if self.name.endswith(".new"):
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(expected(error)):
        write(old)
    assert (old / "file").read_text(encoding="utf-8") == "old"
    assert list(old.parent.iterdir()) == [old]


def test_an_old_one_that_cannot_come_back_is_kept_and_named(old, monkeypatch):
    rename = Path.rename

    def fail(self, target):
        if Path(target).name == "out":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(StorageError, match=r"cannot write the bundle .* whole and lies in .*\.out\.\d+\.old") as told:
        write(old)
    assert (Path(str(told.value).rsplit(" ", 1)[1]) / "file").read_text(encoding="utf-8") == "old"


def test_a_link_stays_a_link(old, tmp_path):
    (tmp_path / "link").symlink_to(old)
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (old / "file").read_text(encoding="utf-8") == "new"
    assert beside(tmp_path / "link", "new").parent == old.parent

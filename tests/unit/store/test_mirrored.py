import os
from pathlib import Path

import pytest

from ichtune.store.mirrored import NOTES_FILE, MirroredFolder
from ichtune.store.store import Store


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def folder(store: Store, here: Path) -> MirroredFolder:
    return MirroredFolder(store, "trials/0001", here)


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != NOTES_FILE)


def test_what_is_there_is_fetched_once_and_again_when_it_changed(
    store: Store, folder: MirroredFolder, here: Path
) -> None:
    store.write("trials/0001/judged.json", b"1")
    store.write("trials/0001/deep/checkpoint", b"x")

    assert sorted(folder.fetch()) == ["deep/checkpoint", "judged.json"]
    assert folder.fetch() == []
    store.write("trials/0001/judged.json", b"2")

    assert folder.fetch() == ["judged.json"]
    assert (here / "judged.json").read_bytes() == b"2"
    assert names(here) == ["deep/checkpoint", "judged.json"]


def test_what_changed_here_is_pushed_once(store: Store, folder: MirroredFolder, here: Path) -> None:
    (here / "deep").mkdir(parents=True)
    (here / "judged.json").write_bytes(b"1")
    (here / "deep" / "checkpoint").write_bytes(b"x")
    (here / ".half.tmp").write_bytes(b"?")

    assert sorted(folder.push()) == ["deep/checkpoint", "judged.json"]
    assert folder.push() == []
    assert folder.fetch() == []
    (here / "judged.json").write_bytes(b"22")

    assert folder.push() == ["judged.json"]
    assert store.read("trials/0001/judged.json") == b"22"
    assert sorted(store.files("trials/0001")) == ["deep/checkpoint", "judged.json"]


def test_a_file_that_could_not_be_pushed_is_newer_and_stays(store: Store, folder: MirroredFolder, here: Path) -> None:
    here.mkdir()
    (here / "checkpoint").write_bytes(b"epoch 1")
    folder.push()
    (here / "checkpoint").write_bytes(b"epoch 2, whose push failed")

    assert folder.fetch() == []
    assert (here / "checkpoint").read_bytes() == b"epoch 2, whose push failed"


def test_another_node_s_file_wins_where_it_is_newer(store: Store, tmp_path: Path) -> None:
    one, other = (MirroredFolder(store, "t", tmp_path / name) for name in ("one", "other"))
    one.local.mkdir()
    (one.local / "checkpoint").write_bytes(b"epoch 1")
    one.push()
    other.fetch()
    (other.local / "checkpoint").write_bytes(b"epoch 2")
    other.push()

    assert one.fetch() == ["checkpoint"]
    assert (one.local / "checkpoint").read_bytes() == b"epoch 2"


def test_what_was_removed_there_goes_here_but_what_was_never_there_stays(
    store: Store, folder: MirroredFolder, here: Path
) -> None:
    here.mkdir()
    (here / "old").write_bytes(b"1")
    folder.push()
    (here / "new").write_bytes(b"2")
    store.remove(["trials/0001/old"])

    assert folder.fetch() == []
    assert names(here) == ["new"]
    assert folder.push() == ["new"]


def test_only_what_is_wanted_is_fetched_pushed_or_removed(store: Store, folder: MirroredFolder, here: Path) -> None:
    for name in ("a.json", "b.bin"):
        store.write(f"trials/0001/{name}", b"1")

    assert folder.fetch(lambda name: name.endswith(".json")) == ["a.json"]
    assert folder.fetch_files(["b.bin", "none"]) == ["b.bin"]
    assert folder.fetch(lambda name: name.endswith(".json")) == []
    assert names(here) == ["a.json", "b.bin"], "what is not asked for is not judged"
    (here / "a.json").write_bytes(b"22")
    (here / "b.bin").write_bytes(b"22")
    assert folder.push_files(["b.bin", "none", ".hidden"]) == ["b.bin"]
    folder.remove(["b.bin", "none"])
    assert list(store.files("trials/0001")) == names(here) == ["a.json"]


def test_a_mirror_that_was_removed_or_whose_notes_were_lost_is_filled_again(
    store: Store, folder: MirroredFolder, here: Path
) -> None:
    store.write("trials/0001/a", b"1")
    folder.fetch()
    (here / NOTES_FILE).write_text("{torn")
    assert folder.fetch() == ["a"]
    (here / "a").unlink()
    assert folder.fetch() == ["a"]


def test_a_copied_time_does_not_hide_a_change_of_length(store: Store, folder: MirroredFolder, here: Path) -> None:
    here.mkdir()
    path = here / "a"
    path.write_bytes(b"1")
    folder.push()
    state = path.stat()
    path.write_bytes(b"22")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    assert folder.push() == ["a"]


def test_the_root_of_a_store_is_a_folder_too(store: Store, here: Path) -> None:
    store.write("ladder.json", b"1")
    root = MirroredFolder(store, "", here)

    assert root.fetch_files(["ladder.json"]) == ["ladder.json"]
    assert root.address("ladder.json") == f"{store.url}/ladder.json"

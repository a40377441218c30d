import errno
from pathlib import Path

import pytest
from fsspec.registry import known_implementations

from ichtune.errors import ConfigError, StorageError
from ichtune.store import store as module
from ichtune.store.store import Store


def test_a_file_comes_back_as_it_was_written(store: Store) -> None:
    store.write("a/b/c.json", b"one")
    store.write("a/b/c.json", b"three")

    assert store.read("a/b/c.json") == b"three"
    assert store.read("a/b/none") is None
    assert store.read("none/at/all") is None
    assert store.address("a/b") == f"{store.url}/a/b"


def test_files_and_folders_are_listed_without_what_is_being_written(store: Store) -> None:
    assert store.files("a") == {}
    assert store.folders("a") == []
    for name in ("a/x.json", "a/deep/er/y.json", "a/.half.tmp", "b/z.json"):
        store.write(name, name.encode())

    assert {name: entry.n_bytes for name, entry in store.files("a").items()} == {"x.json": 8, "deep/er/y.json": 16}
    assert store.folders("a") == ["deep"]
    assert store.folders("") == ["a", "b"]
    assert sorted(store.read_all(["a/x.json", "b/z.json"])) == [b"a/x.json", b"b/z.json"]
    assert store.read_all([]) == []


def test_a_stamp_changes_with_the_file_and_only_then(store: Store) -> None:
    store.write("a", b"one")
    first = store.entry("a")
    assert first is not None
    assert store.entry("a") == first == store.files("")["a"]

    store.write("a", b"two")

    changed = store.entry("a")
    assert changed is not None
    assert changed.stamp != first.stamp
    assert store.entry("none") is None


def test_files_are_copied_both_ways(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(b"x" * 100_000)

    entry = store.upload(source, "runs/weights")
    store.download("runs/weights", target)

    assert entry == store.entry("runs/weights")
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    with pytest.raises(FileNotFoundError):
        store.download("runs/none", target)
    assert [path.name for path in target.parent.iterdir()] == ["target"], "the old one stays and nothing is left over"


def test_a_large_file_is_read_in_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 4)
    store.write("hu/shard", b"0123456789")

    assert list(store.blocks("hu/shard")) == [b"0123", b"4567", b"89"]
    with pytest.raises(LookupError, match="hu/none does not exist"):
        list(store.blocks("hu/none"))


def test_a_new_file_replaces_none(store: Store) -> None:
    store.write("lease/1", b"mine", is_new=True)

    with pytest.raises(FileExistsError):
        store.write("lease/1", b"yours", is_new=True)

    assert store.read("lease/1") == b"mine"


@pytest.mark.parametrize("error", [TypeError("mode"), NotImplementedError(), OSError(errno.ENOSYS, "not implemented")])
def test_a_store_that_knows_no_new_files_is_looked_at_first(
    flaky: type, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pipe_file = flaky.pipe_file

    def plain(self: object, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        if mode == "create":
            raise error
        pipe_file(self, path, value, **kwargs)

    monkeypatch.setattr(flaky, "pipe_file", plain)
    store = Store("flaky://plain/work")
    store.remove(["lease/1"])
    store.write("lease/1", b"mine", is_new=True)

    with pytest.raises(FileExistsError):
        store.write("lease/1", b"yours", is_new=True)
    assert store.read("lease/1") == b"mine"


def test_removing_does_not_mind_what_is_gone(store: Store) -> None:
    for name in ("a", "b", "c"):
        store.write(name, b"1")

    store.remove(["a", "none", "b"])
    store.remove([])
    store.remove(["none"])

    assert list(store.files("")) == ["c"]


def test_a_write_that_breaks_off_leaves_what_was_there(flaky: type) -> None:
    store = Store("flaky://broken/off")
    store.write("ledger", b"whole")

    def half(what: str, path: str) -> None:
        if what == "write":
            flaky().store[path] = type(flaky().store["/broken/off/ledger"])(flaky(), path, b"ha")
            raise OSError(errno.EIO, "connection reset")

    flaky.decide = staticmethod(half)

    with pytest.raises(StorageError, match=r"cannot write flaky://broken/off/ledger: connection reset"):
        store.write("ledger", b"half of it")
    assert store.read("ledger") == b"whole"
    assert list(store.files("")) == ["ledger"]


def test_what_a_network_spoils_is_tried_again_and_what_is_refused_is_not(flaky: type) -> None:
    store = Store("flaky://tried/again")
    tries: list[str] = []

    def fail_twice(what: str, path: str) -> None:
        tries.append(path)
        if len(tries) < 3:
            raise TimeoutError("timed out")

    flaky.decide = staticmethod(fail_twice)
    store.write("a", b"1")
    assert len(tries) == 3

    def refuse(what: str, path: str) -> None:
        tries.append(path)
        raise PermissionError("Access Denied")

    tries.clear()
    flaky.decide = staticmethod(refuse)
    with pytest.raises(StorageError, match=r"flaky://tried/again/a: Access Denied; check the credentials"):
        store.read("a")
    assert len(tries) == 1


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"cannot open nonsense://a: .*s3://bucket/prefix"):
        Store("nonsense://a")
    monkeypatch.setitem(
        known_implementations,
        "absent",
        {"class": "no_such_package.FileSystem", "err": "Install absentfs to access Absent"},
    )
    with pytest.raises(
        ConfigError, match=r"Install absentfs to access Absent.*every node.*pip install 'ichtune\[s3\]'"
    ):
        Store("absent://bucket/a")


def test_a_folder_that_may_not_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = Store(f"file://{tmp_path}/file")

    with pytest.raises(StorageError, match="cannot write"):
        store.write("below/a", b"1")
    assert store.read("below/a") is None

import shutil
from pathlib import Path

import pytest

from ichtune.errors import ConflictError, StorageError
from ichtune.search.ledger import FINISHED, Ledger, TrialRecord
from ichtune.search.mirror import journal_of, open_workspace
from ichtune.search.only_writer import only_writer
from ichtune.search.trial_table import ledger_path
from ichtune.store import store as module
from ichtune.store.store import Store


@pytest.fixture
def url(fake_workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setattr(module, "WAITS_S", ())
    return f"file://{fake_workspace('there').layout.root}"


class Killed(BaseException):
    """What no code of the search can handle."""


def write(workspace, record, *trials: int, then: type[BaseException] | None = None) -> list[TrialRecord]:
    with only_writer(workspace, "tiny", "busy") as on_append:
        ledger = Ledger(ledger_path(workspace.layout, "tiny"), on_append)
        ledger.open({"space_id": "s"})
        for trial in trials:
            ledger.start(record(trial, []))
            ledger.end(trial, FINISHED)
        if then is not None:
            raise then
        return ledger.records()


def test_on_a_disk_the_lock_is_all(fake_workspace, record) -> None:
    workspace = fake_workspace("disk")

    assert [r.trial for r in write(workspace, record, 0)] == [0]
    folder = ledger_path(workspace.layout, "tiny").parent
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "ledger.jsonl"]
    with (
        only_writer(workspace, "tiny", "busy") as on_append,
        pytest.raises(ConflictError, match="busy"),
        only_writer(workspace, "tiny", "busy"),
    ):
        pass
    assert on_append is None


def test_a_search_goes_on_from_a_machine_with_an_empty_disk(url, record, tmp_path, monkeypatch) -> None:
    with pytest.raises(Killed):
        write(open_workspace(url), record, 0, 1, then=Killed)
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "another"))

    records = write(open_workspace(url), record, 2)

    assert [(r.trial, r.status) for r in records] == [(n, FINISHED) for n in (0, 1, 2)]
    journal = journal_of(Store(url), "tiny")
    journal.read()
    assert journal.content == Path(ledger_path(open_workspace(url).layout, "tiny")).read_bytes()
    assert (tmp_path / "there" / "searches" / "tiny" / "ledger.jsonl").read_bytes() == journal.content


def test_a_workspace_that_was_copied_to_a_disk_goes_on_there_and_back(url, record, tmp_path) -> None:
    with pytest.raises(Killed):
        write(open_workspace(url), record, 0, 1, then=Killed)
    shutil.copytree(tmp_path / "there", tmp_path / "copy")

    on_disk = write(open_workspace(tmp_path / "copy"), record, 2)
    assert [r.trial for r in on_disk] == [0, 1, 2]
    shutil.copytree(tmp_path / "copy", tmp_path / "there", dirs_exist_ok=True)

    assert [r.trial for r in write(open_workspace(url), record, 3)] == [0, 1, 2, 3]


def test_what_only_this_machine_knows_was_never_acted_on(url, record) -> None:
    """A line that was written here although its journal was never told of it comes from somebody's editor."""
    write(open_workspace(url), record, 0)
    path = ledger_path(open_workspace(url).layout, "tiny")
    path.write_text(path.read_text() + '{"event": "end", "trial": 0, "status": "failed", "reason": ""}\n')

    assert [r.status for r in write(open_workspace(url), record)] == [FINISHED]


def test_a_line_that_the_url_does_not_take_ends_the_writing(url, record, monkeypatch) -> None:
    workspace = open_workspace(url)
    store_write, n_lines = Store.write, 0

    def failing(self, name, content, **settings):
        nonlocal n_lines
        n_lines += "/ledger/" in name
        if n_lines > 2 and "/ledger/" in name:
            raise StorageError(f"cannot write {name}: no route to host")
        store_write(self, name, content, **settings)

    monkeypatch.setattr(Store, "write", failing)
    with only_writer(workspace, "tiny", "busy") as on_append:
        ledger = Ledger(ledger_path(workspace.layout, "tiny"), on_append)
        ledger.open({"space_id": "s"})
        ledger.start(record(0, []))
        with pytest.raises(StorageError, match="no route to host"):
            ledger.end(0, FINISHED)
        monkeypatch.setattr(Store, "write", store_write)
        with pytest.raises(StorageError, match="no route to host"):  # what happened in between is not known
            ledger.end(0, FINISHED)

    assert ledger.path.read_text().count("\n") == 2
    assert [r.status for r in write(open_workspace(url), record)] == ["interrupted"]


def test_two_machines_do_not_write_one_search(url, record, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ichtune.store.lease.RENEW_S", 0.02)
    monkeypatch.setattr("ichtune.store.lease._machine", lambda: "one")
    with only_writer(open_workspace(url), "tiny", "busy"):
        monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "another"))
        monkeypatch.setattr("ichtune.store.lease._machine", lambda: "other")
        with pytest.raises(ConflictError, match="busy"):
            write(open_workspace(url), record)

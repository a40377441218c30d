import json

import pytest

from ichtune.errors import ConflictError, DataError, StorageError
from ichtune.store import journal as module
from ichtune.store.journal import Gap, Journal, Piece, chain
from ichtune.store.store import Store


def journal(store: Store, term: int = 0, **settings: object) -> Journal:
    made = Journal(store, "s/ledger", "s/ledger.jsonl", **settings)  # type: ignore[arg-type]
    if term:
        made.begin(term)
    return made


def read(store: Store) -> bytes:
    reader = journal(store)
    reader.read()
    return reader.content


def lines(*names: str) -> bytes:
    return b"".join(f"{name}\n".encode() for name in names)


def test_what_was_appended_is_read_again_in_order(store: Store) -> None:
    writer = journal(store, 1)
    for name in ("one", "two", "three"):
        writer.append(name)
        assert read(store).endswith(lines(name)), "a line is there when append returns"

    assert read(store) == lines("one", "two", "three") == writer.content
    assert len(store.files("s/ledger")) == 3


def test_the_next_writer_merges_and_goes_on(store: Store) -> None:
    first = journal(store, 1)
    for name in ("one", "two"):
        first.append(name)

    second = journal(store, 2)
    second.append("three")

    assert read(store) == lines("one", "two", "three")
    assert sorted(store.files("s/ledger")) == ["000000000000000-000002.jsonl", "000000000000008-000002.jsonl"]
    assert store.read("s/ledger.jsonl") == lines("one", "two")
    second.merge()
    assert list(store.files("s/ledger")) == ["000000000000000-000002.jsonl"]
    assert store.read("s/ledger.jsonl") == read(store) == lines("one", "two", "three")


def test_pieces_are_merged_before_they_are_too_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIECES", 5)
    writer = journal(store, 1)
    names = [f"line {i}" for i in range(23)]
    for name in names:
        writer.append(name)

    assert len(store.files("s/ledger")) <= 6
    assert read(store) == lines(*names)


def test_a_kill_between_merging_and_removing_is_read_as_if_there_were_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = journal(store, 1)
    for name in ("one", "two", "three"):
        first.append(name)
    monkeypatch.setattr(Store, "remove", lambda self, names: None)

    second = journal(store, 2)
    second.append("four")

    assert len(store.files("s/ledger")) == 5
    assert read(store) == lines("one", "two", "three", "four")


def test_a_writer_that_was_replaced_without_knowing_adds_nothing(store: Store) -> None:
    sleeper = journal(store, 1)
    sleeper.append("one")
    heir = journal(store, 2)
    sleeper.append("a line of the sleeper, longer than the heir's")
    assert read(store) == lines("one"), "the heir took the journal over before that"
    heir.append("two")
    sleeper.append("another")
    heir.append("three")
    sleeper.merge()

    assert read(store) == lines("one", "two", "three")
    assert journal(store, 3).content == lines("one", "two", "three")


@pytest.mark.parametrize("at_once", [False, True])
def test_the_plain_file_of_a_replaced_writer_is_not_taken_for_one_from_a_disk(store: Store, at_once: bool) -> None:
    sleeper = journal(store, 1)
    sleeper.append("one")
    heir = journal(store, 2)
    sleeper.append("by the sleeper")
    if at_once:
        sleeper.append("more by the sleeper")
    sleeper.merge()
    assert store.read("s/ledger.jsonl") == sleeper.content

    assert read(store) == lines("one")
    heir.append("two")
    assert read(store) == lines("one", "two")
    heir.merge()
    store.write("s/ledger.jsonl", lines("one", "two", "on a disk"))
    assert read(store) == lines("one", "two", "on a disk")


def test_a_kill_between_the_plain_file_and_its_piece_is_read_as_if_there_were_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = journal(store, 1)
    writer.append("one")
    writer.append("two")
    write = Store.write

    def killed(self: Store, path: str, content: bytes) -> None:
        if path.startswith("s/ledger/"):
            raise KeyboardInterrupt
        write(self, path, content)

    monkeypatch.setattr(Store, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.merge()

    assert read(store) == lines("one", "two")


def test_what_a_replaced_writer_wrote_into_an_empty_journal_is_cut_off() -> None:
    pieces = [Piece(0, 1, 10), Piece(10, 1, 10), Piece(0, 2, 4), Piece(4, 2, 8), Piece(20, 1, 5)]

    assert [(p.start, p.term, n) for p, n in chain(pieces)] == [(0, 2, 4), (4, 2, 8)]
    assert [(p.start, p.term, n) for p, n in chain([Piece(0, 1, 10), Piece(6, 2, 3)])] == [(0, 1, 6), (6, 2, 3)]
    assert chain([]) == []


def test_a_missing_piece_is_noticed(store: Store) -> None:
    writer = journal(store, 1)
    for name in ("one", "two", "three"):
        writer.append(name)
    store.remove(["s/ledger/000000000000004-000001.jsonl"])

    with pytest.raises(DataError, match=r"s/ledger is damaged: bytes 4 to 7 are missing before 0+8-000001"):
        read(store)
    with pytest.raises(Gap):
        chain([Piece(5, 1, 5)])


def test_a_ledger_that_came_from_a_disk_is_what_it_begins_with(store: Store) -> None:
    store.write("s/ledger.jsonl", lines("one", "two") + b'{"torn')

    assert read(store) == lines("one", "two")
    writer = journal(store, 1)
    writer.append("three")

    assert read(store) == lines("one", "two", "three")


def test_it_may_go_on_on_a_disk_for_a_while(store: Store) -> None:
    writer = journal(store, 1)
    writer.append("one")
    writer.merge()
    writer.append("two")
    assert read(store) == lines("one", "two"), "the plain file is older"
    store.write("s/ledger.jsonl", lines("one", "two", "three on a disk"))

    assert read(store) == lines("one", "two", "three on a disk")
    store.write("s/ledger.jsonl", lines("one", "by a replaced writer", "and more"))
    assert read(store) == lines("one", "two")


def test_nothing_is_written_without_the_right_to(store: Store) -> None:
    def lost() -> None:
        raise ConflictError("somebody else")

    writer = journal(store, check=lost)
    writer.begin(1)
    with pytest.raises(ConflictError):
        writer.append("one")
    assert store.files("") == {}


def test_a_line_that_cannot_be_written_is_not_there(flaky: type) -> None:
    store = Store("flaky://journal/work")
    writer = journal(store, 1)
    writer.append("one")

    def fail(what: str, path: str) -> None:
        if what == "write":
            raise OSError("no route to host")

    flaky.decide = staticmethod(fail)
    with pytest.raises(StorageError, match="no route to host"):
        writer.append("two")
    assert read(store) == writer.content == lines("one")


def test_other_files_in_its_folder_are_left_alone(store: Store) -> None:
    store.write("s/ledger/README", b"hands off")
    writer = journal(store, 1)
    writer.append(json.dumps({"event": "ä"}))
    writer.merge()

    assert json.loads(read(store)) == {"event": "ä"}
    assert store.read("s/ledger/README") == b"hands off"

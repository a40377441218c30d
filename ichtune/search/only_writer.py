"""The one process that may write a search: on a disk by a lock; at a URL by a lease, its ledger kept as a journal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ichtune.errors import StorageError
from ichtune.locks import only_one
from ichtune.search.mirror import JOURNAL_FOLDER, journal_of, keep_ledger, lease_folder
from ichtune.search.trial_table import ledger_path, lock_path
from ichtune.store.journal import Journal
from ichtune.store.lease import held
from ichtune.store.store import Store
from ichtune.workspace import Workspace

#: Keeps a line of the ledger where it outlives this machine; what the line says is acted on when it returns.
OnAppend = Callable[[str], None]


@contextmanager
def only_writer(workspace: Workspace, search: str, message: str) -> Iterator[OnAppend | None]:
    """Be the only writer of a search for the length of a block.

    Args:
        workspace: on a disk, or a mirror of one at a URL; there the search's ledger is brought here first.
        search: its name.
        message: what to say where it runs already.

    Yields:
        What the ledger hands every line to before it writes it here; None where the disk is all there is.

    Raises:
        ConflictError: the search runs already.
        DataError: the journal at the URL is damaged.
        StorageError: the URL cannot be read or written.
    """
    with only_one(lock_path(workspace.layout, search), message):
        if not workspace.origin:
            _take_in_journal(workspace, search)
            yield None
            return
        store = Store(workspace.origin)
        highest_term = journal_of(store, search).read()
        with held(store, lease_folder(search), message, above=highest_term) as lease:
            journal = journal_of(store, search, lease.check)
            journal.begin(lease.term)
            keep_ledger(workspace.layout, search, journal.content)
            yield lambda line: _append(journal, line)
            journal.merge()


def _take_in_journal(workspace: Workspace, search: str) -> None:
    """Bring the ledger up to its journal, where a workspace was copied from a URL to a disk."""
    layout = workspace.layout
    if (ledger_path(layout, search).parent / JOURNAL_FOLDER).is_dir():
        journal = journal_of(Store(str(layout.root.resolve())), search)
        journal.read()
        keep_ledger(layout, search, journal.content)


def _append(journal: Journal, line: str) -> None:
    try:
        journal.append(line)
    except StorageError as error:
        raise StorageError(f"{error}. The search stopped where it was; the same command continues it") from error

"""NodeFolder: where a trial or a fold keeps its files on the node that trains it, and their like at a URL."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ichtune.search.mirror import mirror_root
from ichtune.search.trial_table import trial_checkpoints
from ichtune.store.mirrored import MirroredFolder
from ichtune.store.store import Store
from ichtune.store.urls import is_url
from ichtune.workspace import Workspace


class NodeFolder:
    """One folder of a workspace, on whatever node this is.

    On a plain path it is the folder itself, and nothing is copied: every node sees it. At a URL it is a mirror on the
    node's own disk; ``fetch`` before the work, ``push`` after every piece of it.

    Args:
        work: path or URL of the workspace.
        name: of the folder, relative to the workspace.
        stage: folder of mirrors on this node; ``mirror_folder()`` by default.
    """

    def __init__(self, work: str, name: str, stage: str | None = None) -> None:
        self._url = work if is_url(work) else ""
        self._name = name
        self._open: MirroredFolder | None = None
        self.path = (mirror_root(work, stage) if self._url else Path(work)) / name

    def place(self, name: str) -> str:
        """Return where a file lies, for people: where it is found from every machine."""
        return f"{self._url.rstrip('/')}/{self._name}/{name}" if self._url else str(self.path / name)

    def fetch(self, *names: str) -> None:
        """Bring files here that are newer at the URL: all, or those that are named.

        Raises:
            ConfigError: the package for the URL's protocol is not installed on this node.
            StorageError: the URL cannot be read.
        """
        if self._url:
            self._open = self._open or MirroredFolder(Store(self._url), self._name, self.path)
            if names:
                self._open.fetch_files(names)
            else:
                self._open.fetch()

    def push(self, gone: Iterable[str] = ()) -> None:
        """Put what changed here to the URL, if it was fetched from.

        Args:
            gone: files that the work is done with; they are removed there if they are no longer here.

        Raises:
            StorageError: the URL cannot be written.
        """
        if self._open is not None:
            self._open.push()
            self._open.remove(name for name in gone if not (self.path / name).exists())


def trial_files(workspace: Workspace) -> dict[tuple[str, int], str]:
    """Return the checkpoints that trials have left, for ``fetched_file`` on any node.

    Returns:
        By recipe_id and the fold that was held out: a path, or where the workspace lies at a URL, a name in it.

    Raises:
        StorageError: the URL cannot be listed.
    """
    if not workspace.origin:
        return {key: str(path) for key, path in trial_checkpoints(workspace.layout).items()}
    root = workspace.layout.root.resolve()
    searches = workspace.layout.searches.relative_to(workspace.layout.root).as_posix()
    there = {root / searches / name for name in Store(workspace.origin).files(searches)}
    found = trial_checkpoints(workspace.layout, lambda path: path.resolve() in there)
    return {key: path.relative_to(root).as_posix() for key, path in found.items()}


def fetched_file(work: str, file: str) -> Path:
    """Return where a file of ``trial_files`` lies on this node, once it is there.

    Raises:
        StorageError: the URL cannot be read.
    """
    name = PurePosixPath(file)
    folder = NodeFolder(work, str(name.parent))
    folder.fetch(name.name)
    return folder.path / name.name

"""MirroredFolder: a folder of this machine and its like in a store, brought to agree in one direction or the other."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from ichtune.store.store import Entry, Store
from ichtune.tables import whole_file

#: Beside the files of a folder: for each, the state in the store and here when the two last agreed.
NOTES_FILE = ".mirror.json"
Accept = Callable[[str], bool]


class MirroredFolder:
    """One folder at both ends.

    A file that changed in the store since the two agreed is fetched; one that changed only here (its upload failed, or
    the process was killed before it) is the newer one and stays, until it is pushed.

    Args:
        store: where the other end lies.
        name: of the folder there.
        local: the folder here.
    """

    def __init__(self, store: Store, name: str, local: Path) -> None:
        self._store, self._name, self.local = store, name, local

    def address(self, name: str) -> str:
        """Return the URL of a file, for people."""
        return self._store.address(self._in_store(name))

    def fetch(self, accept: Accept = lambda name: True) -> list[str]:
        """Bring what changed in the store here, and remove here what was removed there.

        Args:
            accept: says of a name, relative to the folder, whether it is wanted.

        Returns:
            The names that were fetched.

        Raises:
            StorageError: the store cannot be read.
        """
        there = {name: entry for name, entry in self._store.files(self._name).items() if accept(name)}
        for folder in self._noted_folders():
            notes = _Notes(folder)
            for name in notes.names():
                relative = (folder / name).relative_to(self.local).as_posix()
                if relative not in there and accept(relative):
                    (folder / name).unlink(missing_ok=True)
                    notes.drop(name)
        return [name for name, entry in there.items() if self._fetch_one(name, entry)]

    def fetch_files(self, names: Iterable[str]) -> list[str]:
        """Bring named files here where they changed in the store; those that the store lacks are left out.

        Returns:
            The names that were fetched.

        Raises:
            StorageError: the store cannot be read.
        """
        entries = {name: self._store.entry(self._in_store(name)) for name in names}
        return [name for name, entry in entries.items() if entry is not None and self._fetch_one(name, entry)]

    def push(self, accept: Accept = lambda name: True) -> list[str]:
        """Put what changed here since the two agreed into the store; hidden files never go.

        Returns:
            The names that were put there.

        Raises:
            StorageError: the store cannot be written.
        """
        names = (path.relative_to(self.local).as_posix() for path in sorted(self.local.rglob("*")) if path.is_file())
        return self.push_files(name for name in names if accept(name))

    def push_files(self, names: Iterable[str]) -> list[str]:
        """Put named files into the store where they changed here; those that are not here, and hidden ones, stay.

        Returns:
            The names that were put there.

        Raises:
            StorageError: the store cannot be written.
        """
        pushed = []
        for name in names:
            path = self.local / name
            hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
            if path.is_file() and not hidden and not _Notes(path.parent).agrees_here(path):
                before = _state(path)
                entry = self._store.upload(path, self._in_store(name))
                _Notes(path.parent).keep(path.name, entry, before)
                pushed.append(name)
        return pushed

    def remove(self, names: Iterable[str]) -> None:
        """Remove files at both ends.

        Raises:
            StorageError: the store cannot be written.
        """
        for name in names:
            path = self.local / name
            self._store.remove([self._in_store(name)])
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                _Notes(path.parent).drop(path.name)

    def _in_store(self, name: str) -> str:
        return f"{self._name}/{name}" if self._name else name

    def _fetch_one(self, name: str, entry: Entry) -> bool:
        path = self.local / name
        if path.is_file() and _Notes(path.parent).agrees_there(path.name, entry):
            return False
        try:
            self._store.download(self._in_store(name), path)
        except FileNotFoundError:
            return False  # removed since it was listed
        _Notes(path.parent).keep(path.name, entry, _state(path))
        return True

    def _noted_folders(self) -> list[Path]:
        return [path.parent for path in self.local.rglob(NOTES_FILE)]


class _Notes:
    """What is known of the files of one folder here; one process at a time writes a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NOTES_FILE
        try:
            told = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            told = None
        self._known: dict[str, dict[str, Any]] = told if isinstance(told, dict) else {}

    def names(self) -> list[str]:
        return list(self._known)

    def agrees_there(self, name: str, entry: Entry) -> bool:
        return self._known.get(name, {}).get("there") == entry.stamp

    def agrees_here(self, path: Path) -> bool:
        return self._known.get(path.name, {}).get("here") == _state(path)

    def keep(self, name: str, entry: Entry, here: list[int]) -> None:
        self._known[name] = {"there": entry.stamp, "here": here}
        self._write()

    def drop(self, name: str) -> None:
        if self._known.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        with whole_file(self._path) as temporary:
            temporary.write_text(json.dumps(self._known, indent=1, sort_keys=True), encoding="utf-8")


def _state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ino]

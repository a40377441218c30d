"""A workspace at a URL, worked on through a folder of this machine that mirrors what is needed of it.

The URL holds the truth, and the mirror may be removed whenever nothing runs: tables and HU caches are staged as
``staging`` does it, ledgers are put together from their journals, and of runs and blends what a command reads is
fetched. What a command makes is put there before it ends. On a plain path nothing here does anything.
"""

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

from ichtune.errors import ConflictError
from ichtune.layout import Layout
from ichtune.locks import only_one
from ichtune.search.staging import OnProgress, stage_workspace
from ichtune.search.trial_table import holder_path, ledger_path, lock_path, write_trials
from ichtune.second_level_recipe import ALL, AnyRecipe, SecondLevelRecipe
from ichtune.store.journal import Journal
from ichtune.store.lease import DEAD_AFTER_S, last_holder
from ichtune.store.mirrored import Accept, MirroredFolder
from ichtune.store.store import Store
from ichtune.store.urls import folder_name, is_url
from ichtune.tables import whole_file, write_json
from ichtune.workspace import Workspace

MIRROR_VARIABLE = "ICHTUNE_MIRROR"
#: Folder of a search in which its ledger lies as a journal.
JOURNAL_FOLDER = "ledger"
_LAYOUT = Layout(Path())
#: What of the prepared data a mirror links to, in the copy that was staged.
_STAGED = (
    _LAYOUT.workspace_json,
    _LAYOUT.slices,
    _LAYOUT.folds,
    _LAYOUT.label_issues,
    _LAYOUT.sample_submission,
    _LAYOUT.hu,
)
#: Files of a run that are only of use while it is trained, or to look at.
_BY_THE_WAY = ("resume", "best", "last", "epoch_")


def mirror_folder() -> Path:
    """Return the folder of mirrors on this machine: ``$ICHTUNE_MIRROR``, or in the user's cache folder."""
    named = os.environ.get(MIRROR_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ichtune" / "mirror"


def mirror_root(url: str, stage: str | Path | None = None) -> Path:
    """Return the folder that mirrors a workspace at a URL on this machine.

    Args:
        url: of the workspace.
        stage: folder of mirrors; ``mirror_folder()`` by default.
    """
    return (Path(stage) if stage else mirror_folder()) / folder_name(url)


def open_workspace(work: str | Path, stage: str | Path | None = None) -> Workspace:
    """Open a workspace; one at a URL with its tables and every ledger as they are there now.

    Args:
        work: a path, or a URL that fsspec knows.
        stage: folder of mirrors; ``mirror_folder()`` by default.

    Raises:
        ConfigError: a protocol that is unknown, or whose package is not installed.
        DataError: nothing was prepared there.
        StorageError: it cannot be read, or the local disk cannot hold it.
    """
    if not is_url(work):
        return Workspace(work)
    store = Store(str(work))
    workspace = _staged(store.url, stage, ())
    _pull_ledgers(store, workspace.layout)
    return workspace


def fetch_pixels(
    workspace: Workspace,
    inputs: Iterable[tuple[int, str]] | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Bring the HU caches of a workspace at a URL here, each once.

    Args:
        workspace: from ``open_workspace``.
        inputs: ``image_px`` and ``crop`` of what is to be read; None for the base cache, an empty list for none.
        on_progress: told after each file.

    Raises:
        DataError: no cache with such a crop, or a damaged one.
        StorageError: it cannot be read, or the local disk cannot hold it.
    """
    asked = None if inputs is None else list(inputs)
    if workspace.origin and asked != []:
        base = str(workspace.about["cache_id"])
        wanted = {base} if asked is None else {base, *(workspace.cache_id_for(px, crop) for px, crop in asked)}
        _staged(workspace.origin, workspace.layout.root.parent, wanted, on_progress)


@lru_cache(maxsize=8)
def node_workspace(work: str, stage: str | None, inputs: frozenset[tuple[int, str]]) -> Workspace:
    """Open a workspace on whatever node this is, with the pixels that some recipes read.

    Args:
        work: path or URL of the workspace.
        stage: folder on this node's own disk for copies of prepared data; None reads a path as it is, and mirrors a
            URL where ``mirror_folder`` says.
        inputs: ``image_px`` and ``crop`` of the recipes.

    Raises:
        ConfigError: a protocol that is unknown, or whose package is not installed.
        DataError: nothing was prepared there, or not for these inputs.
        StorageError: it cannot be read, or this node's disk cannot hold it.
    """
    if is_url(work):
        workspace = _staged(Store(work).url, stage, ())
        fetch_pixels(workspace, inputs)
        return workspace
    workspace = Workspace(work)
    if stage is None:
        return workspace
    return Workspace(stage_workspace(work, Path(stage), caches={workspace.cache_id_for(*wanted) for wanted in inputs}))


def fetch_runs(workspace: Workspace, recipes: Sequence[AnyRecipe] | None = None) -> None:
    """Bring runs here: of all their tables and facts, or of some recipes and those that they learn from all that lasts.

    Of the runs that a recipe of the second level learns from, only predictions and embeddings are brought.

    Raises:
        StorageError: they cannot be read.
    """
    if not workspace.origin:
        return
    store, layout = Store(workspace.origin), workspace.layout
    if recipes is None:
        MirroredFolder(store, _LAYOUT.runs.name, layout.runs).fetch(_is_table)
        return
    wanted: dict[str, list[Accept]] = {}
    for recipe in recipes:
        wanted.setdefault(recipe.recipe_id, []).append(_lasts)
        for source in sources_of(recipe):
            wanted.setdefault(source, []).append(_lasts_of_source(recipe))
    for recipe_id, accepts in wanted.items():
        name = f"{_LAYOUT.runs.name}/{recipe_id}"
        MirroredFolder(store, name, layout.root / name).fetch(partial(_any_of, accepts))


def fetch_sources(workspace: Workspace, recipe: AnyRecipe, fold: int) -> None:
    """Bring here what one fold of a recipe learns from: the same fold of the runs that it names.

    A recipe of the second level learns from all folds of its members' predictions.

    Raises:
        StorageError: they cannot be read.
    """
    if not workspace.origin:
        return
    for recipe_id in sources_of(recipe):
        below = "" if isinstance(recipe, SecondLevelRecipe) else f"/fold_{fold}"
        name = f"{_LAYOUT.runs.name}/{recipe_id}{below}"
        MirroredFolder(Store(workspace.origin), name, workspace.layout.root / name).fetch(_lasts_of_source(recipe))


def sources_of(recipe: AnyRecipe) -> list[str]:
    """Return the recipe_ids of the runs that a recipe starts from, is taught by or learns from."""
    if isinstance(recipe, SecondLevelRecipe):
        return [] if recipe.members == ALL else list(recipe.members)
    return [source for source in (recipe.warm_start, recipe.pseudo_labels) if source and "." not in source]


def _lasts_of_source(recipe: AnyRecipe) -> Accept:
    """Say what of the runs that a recipe names is brought here."""
    if not isinstance(recipe, SecondLevelRecipe):
        return _lasts
    return _is_predicted if recipe.embeddings else _is_table


def fetch_results(workspace: Workspace) -> None:
    """Bring blends, ladder and submission here.

    Raises:
        StorageError: they cannot be read.
    """
    if workspace.origin:
        store, layout = Store(workspace.origin), workspace.layout
        MirroredFolder(store, _LAYOUT.blends.name, layout.blends).fetch()
        MirroredFolder(store, "", layout.root).fetch_files([_LAYOUT.ladder.name, _LAYOUT.submission.name])


def push(workspace: Workspace, paths: Iterable[Path]) -> list[str]:
    """Put files and folders of a workspace, as they are here, to its URL; nothing where it is a plain path.

    Args:
        workspace: from ``open_workspace``.
        paths: files, and folders with all below them; those that do not exist are left out.

    Returns:
        The URL of each file that was put there.

    Raises:
        StorageError: they cannot be written.
    """
    if not workspace.origin:
        return []
    store, root = Store(workspace.origin), workspace.layout.root
    pushed = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            folder = MirroredFolder(store, name, path)
            pushed += [folder.address(below) for below in folder.push()]
        else:
            pushed += [store.address(one) for one in MirroredFolder(store, "", root).push_files([name])]
    return pushed


def journal_of(store: Store, search: str, check: Callable[[], None] = lambda: None) -> Journal:
    """Return the journal of a search's ledger.

    Args:
        store: where it lies.
        search: its name.
        check: raises where this process may not write it.
    """
    folder = f"{_LAYOUT.searches.name}/{search}"
    return Journal(store, f"{folder}/{JOURNAL_FOLDER}", f"{folder}/ledger.jsonl", check)


def lease_folder(search: str) -> str:
    """Return where in a store the lease of a search lies."""
    return f"{_LAYOUT.searches.name}/{search}/lease"


def keep_ledger(layout: Layout, search: str, content: bytes) -> None:
    """Make the ledger of a search here what it is at the URL; whoever calls holds the search's lock."""
    path = ledger_path(layout, search)
    if not content:
        path.unlink(missing_ok=True)
    elif not path.is_file() or path.read_bytes() != content:
        with whole_file(path) as temporary:
            temporary.write_bytes(content)


def _pull_ledgers(store: Store, layout: Layout) -> None:
    there = store.folders(_LAYOUT.searches.name)
    here = [path.parent.name for path in layout.searches.glob("*/ledger.jsonl")]
    for search in sorted({*there, *here}):
        journal = journal_of(store, search)
        if search in there:
            journal.read()
            _keep_holder(store, layout, search)
        with suppress(ConflictError), only_one(lock_path(layout, search), "it runs here, and keeps its ledger itself"):
            keep_ledger(layout, search, journal.content)
    if any(layout.searches.glob("*/ledger.jsonl")):
        write_trials(layout)
    else:
        layout.trials.unlink(missing_ok=True)


def _keep_holder(store: Store, layout: Layout, search: str) -> None:
    holder = last_holder(store, lease_folder(search))
    alive_until = 0.0 if holder is None or holder.is_dead else holder.renewed_at + DEAD_AFTER_S
    write_json({"alive_until": alive_until}, holder_path(layout, search))


def _staged(
    url: str, stage: str | Path | None, caches: Collection[str], on_progress: OnProgress | None = None
) -> Workspace:
    root = mirror_root(url, stage)
    if stage is None:
        root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # slices of patients are nobody else's business
    view = stage_workspace(url, root.parent, caches=caches, on_progress=on_progress)
    root.mkdir(parents=True, exist_ok=True)
    for name in _STAGED:
        if (view / name).exists():
            _link(root / name, Path("..") / view.name / name)
        else:
            (root / name).unlink(missing_ok=True)
    return Workspace(root, url)


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _any_of(accepts: Sequence[Accept], name: str) -> bool:
    return any(accept(name) for accept in accepts)


def _is_table(name: str) -> bool:
    return name.endswith(".json") or (name.endswith(".parquet") and not name.endswith("_embeddings.parquet"))


def _is_predicted(name: str) -> bool:
    return name.endswith((".json", ".parquet"))


def _lasts(name: str) -> bool:
    return not name.rpartition("/")[2].startswith(_BY_THE_WAY)

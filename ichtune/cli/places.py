"""Workspaces wherever they lie: what of one at a URL is fetched and put back, as the person watching sees it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ichtune.cli.console import note, progress
from ichtune.store.urls import is_url

if TYPE_CHECKING:
    from ichtune.search.staging import StageProgress
    from ichtune.workspace import Workspace

_MIB = 1024.0 * 1024.0


def open_place(work: str, quiet: bool = False, *, stage: str | None = None, with_runs: bool = False) -> "Workspace":
    """Open the workspace that ``--work`` names; one at a URL with its tables and ledgers as they are there now.

    Args:
        work: a path or a URL.
        quiet: say nothing.
        stage: folder of this machine for what is fetched.
        with_runs: also the tables of runs and blends, and the last ladder and submission.
    """
    from ichtune.workspace import Workspace

    if not is_url(work):
        return Workspace(work)
    from ichtune.search.mirror import fetch_results, fetch_runs, mirror_root, open_workspace

    note(f"{work} is mirrored in {mirror_root(work, stage)}", quiet)
    workspace = open_workspace(work, stage)
    if with_runs:
        fetch_runs(workspace)
        fetch_results(workspace)
    return workspace


def fetch_pixels(workspace: "Workspace", inputs: Iterable[tuple[int, str]] | None = None, quiet: bool = False) -> None:
    """Bring the HU caches of a workspace at a URL here, unless they are; nothing is done for one on a disk.

    Args:
        workspace: from ``open_place``.
        inputs: ``image_px`` and ``crop`` of what is to be read; None for the base cache.
        quiet: say nothing.
    """
    if not workspace.origin:
        return
    from ichtune.search.mirror import fetch_pixels

    with progress("fetching", unit="MiB", quiet=quiet) as bar:

        def show(so_far: "StageProgress") -> None:
            if so_far.total_bytes:
                text = "another process fetches them" if so_far.waits else ""
                bar.update(so_far.done_bytes / _MIB, so_far.total_bytes / _MIB, text)

        fetch_pixels(workspace, inputs, show)


def put_back(workspace: "Workspace", paths: Iterable[Path], quiet: bool = False) -> None:
    """Put what a command made into the workspace at its URL, and say so; nothing is done for one on a disk.

    Args:
        workspace: from ``open_place``.
        paths: files and folders; those outside of the workspace stay where they are.
        quiet: say nothing.
    """
    if not workspace.origin:
        return
    from ichtune.search.mirror import push

    within = [path for path in paths if path.is_relative_to(workspace.layout.root)]
    for address in push(workspace, within):
        note(f"kept at {address}", quiet)

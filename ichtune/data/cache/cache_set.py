"""The HU caches of one workspace: whole slices and crops, of several sizes, all with the same rows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ichtune.data.cache.build import CacheBuild, CacheSpec, Progress, RunShards, build_cache
from ichtune.data.cache.head_crop import BOX_VERSION, series_boxes
from ichtune.data.cache.hu_cache import HuCache, read_about
from ichtune.data.source_files import SourceFiles
from ichtune.errors import DataError
from ichtune.recipe import CROPS
from ichtune.tables import whole_file

#: What ``workspace.json`` says about one cache: ``cache_id``, ``size_px`` (None for native) and ``crop``.
CacheNote = dict[str, Any]


@dataclass(frozen=True)
class PrepareProgress:
    """How far a preparation is.

    Attributes:
        stage: what is being done, as in ``"reading, 256 px"``; counts start again with each stage.
        n_done: slices that this run has done, refused ones among them.
        n_all: slices that this run has to do, as far as the files read so far tell.
        n_refused: slices that were refused so far.
        n_resumed: files that an earlier run had done; they count in neither.
    """

    stage: str
    n_done: int
    n_all: int
    n_refused: int = 0
    n_resumed: int = 0


OnProgress = Callable[[PrepareProgress], None]


@dataclass(frozen=True)
class CacheBuilder:
    """Builds the caches of one source, each once.

    Attributes:
        source: the files.
        hu_folder: folder of all caches of the workspace.
        n_processes: worker processes; None takes every core.
        run_shards: runs shards elsewhere than on this machine's cores.
        on_progress: told how far it is.
    """

    source: SourceFiles
    hu_folder: Path
    n_processes: int | None = None
    run_shards: RunShards | None = None
    on_progress: OnProgress | None = None

    def build(self, spec: CacheSpec, boxes: np.ndarray | None = None, base: CacheBuild | None = None) -> CacheBuild:
        """Build one cache, or find the one that is there."""
        size = f"{spec.size_px} px" if spec.size_px else "native size"
        stage = f"reading, {size}" if spec.crop == CROPS[0] else f"cropping ({spec.crop}), {size}"

        def tell(progress: Progress) -> None:
            if self.on_progress is not None:
                self.on_progress(_in_slices(stage, progress))

        return build_cache(
            self.source,
            self.hu_folder,
            spec,
            boxes=boxes,
            base=base,
            n_processes=self.n_processes,
            run_shards=self.run_shards,
            on_progress=tell,
        )

    def boxes(self, cache: HuCache, slices: pd.DataFrame, crop: str) -> np.ndarray:
        """Return the box of every row of a cache of whole slices.

        Boxes are kept beside the caches: finding them reads all of one, and the same boxes give the same cache.
        """
        path = self.hu_folder / f"boxes-{cache.cache_id}-{crop}-{BOX_VERSION}.npy"
        boxes = _read_boxes(path)
        if boxes.shape == (len(slices), 3):
            return boxes

        def tell(n_done: int, n_all: int) -> None:
            if self.on_progress is not None:
                self.on_progress(PrepareProgress(f"finding boxes ({crop})", n_done, n_all))

        boxes = series_boxes(cache, slices, crop, tell)
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, boxes)
        return boxes


def _in_slices(stage: str, progress: Progress) -> PrepareProgress:
    """Count slices: a plain file is one, and files of many frames hold as many as those read so far."""
    rows_a_file = progress.n_rows / progress.n_done if progress.n_done else 1.0
    n_done, n_all = (
        round((n_files - progress.n_resumed) * rows_a_file) for n_files in (progress.n_done, progress.n_files)
    )
    return PrepareProgress(stage, n_done, n_all, progress.n_refused, progress.n_resumed)


def _read_boxes(path: Path) -> np.ndarray:
    """Boxes that an earlier run found; empty where there are none that can be read."""
    try:
        return np.asarray(np.load(path))
    except (OSError, ValueError, EOFError):
        return np.empty(0)


def earlier_caches(earlier: Mapping[str, Any], rows_id: str, hu_folder: Path) -> list[CacheNote]:
    """Return the caches that a workspace had of the same rows and that are still whole.

    Args:
        earlier: ``workspace.json`` as it was; empty for a new workspace.
        rows_id: of the rows as they are now.
        hu_folder: folder of all caches of the workspace.
    """
    noted = list(earlier.get("caches") or []) if earlier.get("rows_id") == rows_id else []
    return [note for note in noted if _is_whole(hu_folder / str(note["cache_id"]))]


def merge_caches(caches: Iterable[CacheNote], builds: Iterable[CacheBuild]) -> list[CacheNote]:
    """Add finished caches to a list: one for each size and crop, in the order in which they were first prepared."""
    merged = {(note["size_px"], note["crop"]): note for note in caches}
    for build in builds:
        about = read_about(build.folder)
        note = {key: about[key] for key in ("cache_id", "size_px", "crop")}
        merged[note["size_px"], note["crop"]] = note
    return list(merged.values())


def base_note(caches: Iterable[CacheNote]) -> CacheNote:
    """Return the first cache of whole slices: the one that stays when others are added."""
    return next(note for note in caches if note["crop"] == CROPS[0])


def _is_whole(folder: Path) -> bool:
    try:
        read_about(folder)
    except DataError:
        return False
    return True

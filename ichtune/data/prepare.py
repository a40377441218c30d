"""From a folder of DICOM files and a label CSV to a workspace: SliceTable, HU caches, fold plan."""

import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ichtune.data.cache.build import CacheBuild, CacheSpec, RunShards
from ichtune.data.cache.cache_set import CacheBuilder, CacheNote, OnProgress, base_note, earlier_caches, merge_caches
from ichtune.data.cache.hu_cache import HuCache, file_sha256
from ichtune.data.folds import FoldPlan, make_folds, n_labelled_groups, write_folds
from ichtune.data.index import build_slice_table
from ichtune.data.label_table import attach_labels, no_issues, read_labels
from ichtune.data.phantom.folder import find_phantom
from ichtune.data.prepare_summary import PrepareSummary, refusal_codes, summarise
from ichtune.data.source_files import find_files
from ichtune.errors import ConfigError, DataError, NothingUsableError, StorageError, nearest
from ichtune.layout import Layout
from ichtune.recipe import CROPS
from ichtune.tables import LABEL_ISSUES, SLICES, remove_leftovers, write_json, write_table

#: Folds where none are asked for, and there are patients enough.
DEFAULT_K = 5
DEFAULT_SIZE_PX = 256
DEFAULT_SEED = 7
_SIZE_BOUNDS_PX = (16, 4096)
_SAMPLE_PATTERN = "*sample_submission*.csv"


@dataclass(frozen=True)
class PrepareSpec:
    """What to prepare, and how.

    Attributes:
        dicom_dir: folder with the DICOM files, searched with its sub-folders.
        labels: CSV with labels; None leaves every slice unlabelled.
        out: the workspace to write.
        size_px: side of the cached slices; None keeps each file's own matrix.
        crops: which caches of that size to build, from ``recipe.CROPS``. The cache of whole slices (``none``) is
            left out only where the workspace has one already, of whatever size.
        sample_submission: CSV whose order the submission keeps; None takes the one in dicom_dir, if there is
            one.
        k: number of folds; None takes 5, or as many as there are patients with labels where those are fewer.
        seed: breaks ties between folds.
        n_processes: worker processes; None takes every core.
        replace: let the tables of another source in ``out`` go.
    """

    dicom_dir: Path
    labels: Path | None
    out: Path
    size_px: int | None = DEFAULT_SIZE_PX
    crops: tuple[str, ...] = CROPS[:1]
    sample_submission: Path | None = None
    k: int | None = None
    seed: int = DEFAULT_SEED
    n_processes: int | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        low, high = _SIZE_BOUNDS_PX
        if self.size_px is not None and not low <= self.size_px <= high:
            raise ConfigError(f"--size must be {low} to {high} pixels or 'native', got {self.size_px}")
        for crop in self.crops:
            if crop not in CROPS:
                raise ConfigError(f"--crop must be among {', '.join(CROPS)}, got {crop!r}. {nearest(crop, CROPS)}")
        if not self.crops or (self.size_px is None and set(self.crops) != {CROPS[0]}):
            what = "names no crop" if not self.crops else "needs one size for all slices, not --size native"
            raise ConfigError(f"--crop {what}; write --crop none,head --size {DEFAULT_SIZE_PX}")
        if self.k is not None and self.k < 2:
            raise ConfigError(f"--folds must be at least 2, got {self.k}; write --folds 5")
        if self.seed < 0:
            raise ConfigError(f"--seed must be 0 or more, got {self.seed}")
        if self.n_processes is not None and self.n_processes < 1:
            raise ConfigError(f"--processes must be at least 1, got {self.n_processes}")
        for name, path in (("--labels", self.labels), ("--sample-submission", self.sample_submission)):
            if path is not None and not path.is_file():
                raise DataError(f"{name} {path} is no file; name an existing CSV")

    @property
    def source_dir(self) -> str:
        """The source as the workspace names it, wherever the command was started."""
        return str(self.dicom_dir.resolve())


def prepare(
    spec: PrepareSpec, on_progress: OnProgress | None = None, *, run_shards: RunShards | None = None
) -> PrepareSummary:
    """Read every file once, and once more for each crop, and write the workspace.

    The label CSV is read first, so that a mistake in it costs no pass over the pixels. Nothing is overwritten
    before its replacement is whole, and a run that was killed goes on where it was. The same source at another
    size or with another crop adds a cache to the workspace; the base cache stays the one that was first.

    Args:
        spec: what to prepare.
        on_progress: told how far it is, after every shard of a cache.
        run_shards: runs shards elsewhere than on this machine's cores.

    Raises:
        DataError: a path is missing, the label CSV is malformed, or fits none of the files; or files changed
            while they were read.
        NothingUsableError: there are files, but not one CT slice.
        ConfigError: more folds asked for than patients with labels; or the workspace has the tables of another source,
            or labels that this call would drop.
        StorageError: the workspace cannot be written.
    """
    start = time.monotonic()
    layout = Layout(spec.out)
    earlier = _earlier(layout)
    _check_same_source(spec, earlier)
    _check_keeps_labels(spec, earlier)
    labels = read_labels(spec.labels) if spec.labels else None
    sample = spec.sample_submission or _only_sample_submission(spec.dicom_dir)
    source = find_files(spec.dicom_dir, leave_out=spec.out)
    builder = CacheBuilder(source, layout.hu, spec.n_processes, run_shards, on_progress)
    base = builder.build(CacheSpec(_base_size_px(spec, earlier)))
    slices = build_slice_table(base.rows)
    _check_usable(slices, spec.dicom_dir)
    issues = no_issues()
    if labels is not None and spec.labels is not None:
        slices, issues = attach_labels(slices, labels, spec.labels)
    plan = _fold_plan(slices, spec)
    caches = merge_caches(earlier_caches(earlier, base.rows_id, layout.hu), [base])
    crops = _build_crops(spec, builder, base, slices, layout.hu / str(base_note(caches)["cache_id"]))
    caches = merge_caches(caches, crops)
    about = _about(spec, plan, base.rows_id, caches)
    _write(layout, about, earlier, slices, issues, plan, sample)
    return summarise(
        slices,
        issues,
        plan,
        base.rows,
        caches,
        n_ignored=source.n_ignored,
        is_reused=all(build.is_reused for build in [base, *crops]),
        seconds=time.monotonic() - start,
    )


def _check_same_source(spec: PrepareSpec, earlier: dict[str, Any]) -> None:
    """Refuse to put one data set in the place of another in passing: runs and searches belong to the first."""
    held = earlier.get("source_dir")
    if held and held != spec.source_dir and not spec.replace:
        raise ConfigError(
            f"{spec.out} holds the tables of {held}, not of {spec.source_dir}; use another --out, or --replace to "
            "prepare the new source in their place (also where the old one was only moved: what is the same is not "
            "read again)"
        )


def _check_keeps_labels(spec: PrepareSpec, earlier: dict[str, Any]) -> None:
    """Refuse to take the labels from a workspace in passing: adding a size or a crop must name them again."""
    held = earlier.get("labels_csv")
    if held and spec.labels is None and earlier.get("source_dir") == spec.source_dir:
        raise ConfigError(
            f"{spec.out} was prepared with the labels of {held['name']}, and this command gives none; name them again "
            "with --labels, or use another --out for a workspace without labels"
        )


def _base_size_px(spec: PrepareSpec, earlier: dict[str, Any]) -> int | None:
    """Size of the cache of whole slices; one that is there will do where no other one is asked for."""
    if CROPS[0] not in spec.crops and "cache_id" in earlier:
        found: int | None = earlier.get("size_px")
        return found
    return spec.size_px


def _build_crops(
    spec: PrepareSpec, builder: CacheBuilder, base: CacheBuild, slices: pd.DataFrame, whole: Path
) -> list[CacheBuild]:
    """Build a cache of each crop: boxes from the workspace's base cache, pixels from the files at full resolution."""
    builds = []
    for crop in CROPS[1:]:
        if crop in spec.crops:
            boxes = builder.boxes(HuCache(whole), slices, crop)
            builds.append(builder.build(CacheSpec(spec.size_px, crop), boxes, base))
    return builds


def _only_sample_submission(folder: Path) -> Path | None:
    """The sample submission beside the images; with several there is no telling which is meant."""
    found = sorted(folder.glob(_SAMPLE_PATTERN)) if folder.is_dir() else []
    return found[0] if len(found) == 1 else None


def _earlier(layout: Layout) -> dict[str, Any]:
    """What the workspace says about itself; nothing where it says nothing sound."""
    try:
        about = json.loads(layout.workspace_json.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(about) if isinstance(about, dict) else {}


def _check_usable(slices: pd.DataFrame, folder: Path) -> None:
    if (slices["status"] == "ok").any():
        return
    codes = refusal_codes(slices)
    code, n_rows = Counter(codes).most_common(1)[0]
    first = slices.iloc[codes.index(code)]
    raise NothingUsableError(
        f"{folder} holds {slices['path'].nunique()} files and not one usable CT slice; the most common reason is "
        f"{code} ({n_rows} files), for instance {first['path']}: {first['reason']}"
    )


def _fold_plan(slices: pd.DataFrame, spec: PrepareSpec) -> FoldPlan | None:
    """The plan; None where only one patient has labels and no number of folds was asked for."""
    if spec.k is not None:
        return make_folds(slices, spec.k, spec.seed)
    n_labelled = n_labelled_groups(slices)
    if n_labelled == 1:
        return None
    return make_folds(slices, min(DEFAULT_K, n_labelled) if n_labelled else DEFAULT_K, spec.seed)


def _about(spec: PrepareSpec, plan: FoldPlan | None, rows_id: str, caches: list[CacheNote]) -> dict[str, Any]:
    """What ties the tables and caches together."""
    base = base_note(caches)
    return {
        "source_dir": spec.source_dir,
        "labels_path": str(spec.labels.resolve()) if spec.labels else None,
        "labels_csv": {"name": spec.labels.name, "sha256": file_sha256(spec.labels)} if spec.labels else None,
        "cache_id": base["cache_id"],
        "size_px": base["size_px"],
        "caches": caches,
        "rows_id": rows_id,
        "fold_plan_hash": plan.plan_hash if plan else None,
        "k": plan.k if plan else None,
        "seed": spec.seed,
        "generated": find_phantom(spec.dicom_dir) is not None,
    }


def _write(
    layout: Layout,
    about: dict[str, Any],
    earlier: dict[str, Any],
    slices: pd.DataFrame,
    issues: pd.DataFrame,
    plan: FoldPlan | None,
    sample: Path | None,
) -> None:
    """Write the tables, and last what ties them together."""
    inputs = {"cache_id": about["cache_id"], "labels_csv": about["labels_csv"]}
    try:
        if any(earlier.get(key) != value for key, value in about.items() if key != "caches"):
            layout.workspace_json.unlink(missing_ok=True)  # a half-changed workspace must not look whole
        for path in (layout.slices, layout.label_issues, layout.folds, layout.workspace_json):
            remove_leftovers(layout.root, path.name)
        write_table(slices, layout.slices, SLICES, inputs)
        write_table(issues, layout.label_issues, LABEL_ISSUES, inputs)
        if plan:
            write_folds(plan, layout.folds)
        else:
            layout.folds.unlink(missing_ok=True)
        if sample is None:
            layout.sample_submission.unlink(missing_ok=True)
        elif sample.resolve() != layout.sample_submission.resolve():
            shutil.copyfile(sample, layout.sample_submission)
    except OSError as error:
        raise StorageError(f"cannot write to {layout.root}: {error.strerror or error}") from error
    write_json(about, layout.workspace_json)

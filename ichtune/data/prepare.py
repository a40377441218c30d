"""From a folder of DICOM files and a label CSV to a workspace: SliceTable, HU cache, fold plan."""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ichtune.data.cache_build import CacheBuild, Progress, build_cache
from ichtune.data.folds import FoldPlan, make_folds, write_folds
from ichtune.data.hu_cache import file_sha256
from ichtune.data.index import build_slice_table
from ichtune.data.label_table import attach_labels, no_issues, read_labels
from ichtune.data.phantom_folder import find_phantom
from ichtune.data.prepare_summary import PrepareSummary, refusal_codes, summarise
from ichtune.data.source_files import find_files
from ichtune.errors import ConfigError, DataError, NothingUsableError, StorageError
from ichtune.layout import Layout
from ichtune.tables import LABEL_ISSUES, SLICES, write_json, write_table

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
        sample_submission: CSV whose order the submission keeps; None takes the one in dicom_dir, if there is
            one.
        k: number of folds; None takes 5, or as many as there are patients with labels where those are fewer.
        seed: breaks ties between folds.
        n_processes: worker processes; None takes every core.
    """

    dicom_dir: Path
    labels: Path | None
    out: Path
    size_px: int | None = DEFAULT_SIZE_PX
    sample_submission: Path | None = None
    k: int | None = None
    seed: int = DEFAULT_SEED
    n_processes: int | None = None

    def __post_init__(self) -> None:
        low, high = _SIZE_BOUNDS_PX
        if self.size_px is not None and not low <= self.size_px <= high:
            raise ConfigError(f"--size must be {low} to {high} pixels or 'native', got {self.size_px}")
        if self.k is not None and self.k < 2:
            raise ConfigError(f"--folds must be at least 2, got {self.k}; write --folds 5")
        if self.n_processes is not None and self.n_processes < 1:
            raise ConfigError(f"--processes must be at least 1, got {self.n_processes}")
        for name, path in (("--labels", self.labels), ("--sample-submission", self.sample_submission)):
            if path is not None and not path.is_file():
                raise DataError(f"{name} {path} is no file; name an existing CSV")


def prepare(spec: PrepareSpec, on_progress: Callable[[Progress], None] | None = None) -> PrepareSummary:
    """Read every file once and write the workspace.

    The label CSV is read first, so that a mistake in it costs no pass over the pixels. Nothing is overwritten
    before its replacement is whole, and a run that was killed goes on where it was.

    Args:
        spec: what to prepare.
        on_progress: called after every shard of the cache.

    Raises:
        DataError: a path is missing, the label CSV is malformed, or fits none of the files.
        NothingUsableError: there are files, but not one CT slice.
        ConfigError: more folds asked for than patients with labels.
        StorageError: the workspace cannot be written.
    """
    start = time.monotonic()
    layout = Layout(spec.out)
    labels = read_labels(spec.labels) if spec.labels else None
    sample = spec.sample_submission or _only_sample_submission(spec.dicom_dir)
    source = find_files(spec.dicom_dir, leave_out=spec.out)
    build = build_cache(source, layout.hu, spec.size_px, spec.n_processes, on_progress)
    slices = build_slice_table(build.rows)
    _check_usable(slices, spec.dicom_dir)
    issues = no_issues()
    if labels is not None and spec.labels is not None:
        slices, issues = attach_labels(slices, labels, spec.labels)
    plan = _fold_plan(slices, spec)
    _write(layout, spec, slices, issues, plan, build, sample)
    return summarise(
        slices,
        issues,
        plan,
        build,
        n_ignored=source.n_ignored,
        size_px=spec.size_px,
        seconds=time.monotonic() - start,
    )


def _only_sample_submission(folder: Path) -> Path | None:
    """The sample submission beside the images; with several there is no telling which is meant."""
    found = sorted(folder.glob(_SAMPLE_PATTERN)) if folder.is_dir() else []
    return found[0] if len(found) == 1 else None


def _check_usable(slices: pd.DataFrame, folder: Path) -> None:
    if (slices["status"] == "ok").any():
        return
    code, n_files = Counter(refusal_codes(slices)).most_common(1)[0]
    raise NothingUsableError(
        f"{folder} holds {len(slices)} files and not one usable CT slice; the most common reason is {code} "
        f"({n_files} files), for instance {slices['path'].iloc[0]}: {slices['reason'].iloc[0]}"
    )


def _fold_plan(slices: pd.DataFrame, spec: PrepareSpec) -> FoldPlan | None:
    """The plan; None where only one patient has labels and no number of folds was asked for."""
    if spec.k is not None:
        return make_folds(slices, spec.k, spec.seed)
    n_labelled = int(slices.loc[slices["is_labelled"], "patient_id"].nunique())
    if n_labelled == 1:
        return None
    return make_folds(slices, min(DEFAULT_K, n_labelled) if n_labelled else DEFAULT_K, spec.seed)


def _write(
    layout: Layout,
    spec: PrepareSpec,
    slices: pd.DataFrame,
    issues: pd.DataFrame,
    plan: FoldPlan | None,
    build: CacheBuild,
    sample: Path | None,
) -> None:
    """Write the tables, and last what ties them together."""
    labels_csv = {"name": spec.labels.name, "sha256": file_sha256(spec.labels)} if spec.labels else None
    inputs = {"cache_id": build.cache_id, "labels_csv": labels_csv}
    try:
        layout.workspace_json.unlink(missing_ok=True)  # a half-changed workspace must not look whole
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
    about = {
        "source_dir": str(spec.dicom_dir.resolve()),
        "labels_csv": labels_csv,
        "cache_id": build.cache_id,
        "size_px": spec.size_px,
        "fold_plan_hash": plan.plan_hash if plan else None,
        "k": plan.k if plan else None,
        "seed": spec.seed,
        "generated": find_phantom(spec.dicom_dir) is not None,
    }
    write_json(about, layout.workspace_json)

"""``ichtune audit``: proof that folds, and train and test, share no patient, study, series or picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ichtune.cli import console
from ichtune.cli.audit_view import PLURALS, AuditResult, audit_json, checks_table, notes, pairs_table, rates_table
from ichtune.cli.options import DEFAULT_WORK, JsonOption, QuietOption, WorkOption, work_argument
from ichtune.errors import ConfigError, ConflictError, DataError

if TYPE_CHECKING:
    import pandas as pd

    from ichtune.data.audit.leaks import Split
    from ichtune.data.audit.near_duplicates import NearDuplicates
    from ichtune.data.cache.check import CacheCheck
    from ichtune.workspace import Workspace


def audit(
    work: WorkOption = DEFAULT_WORK,
    split: Annotated[
        Path | None,
        typer.Option(
            "--split",
            help="CSV or parquet to audit instead of the workspace's folds: image_id, series_instance_uid, "
            "dicom_study_uid or patient_id, and fold, or split (train or test), or both.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="CSV to write every near-duplicate pair to.")] = None,
    tables_only: Annotated[
        bool, typer.Option("--tables-only", help="Read no pixels: no checksums and no near-duplicates.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Prove that no patient, study, series or identical picture lies in two folds, or in train and test.

    Test slices are the unlabelled ones, but for those whose label was spoilt. Pictures are identical when every value
    in HU is, padding aside; blank slices are left out of that, since air looks the same in every head. Near-duplicates
    of different patients are listed, and are no leak by themselves. Ends with 4 when something leaks, with 3 when a
    cache is damaged.

    Example: ichtune audit --split my_folds.csv
    """
    found = _audit(work, split, out, tables_only=tables_only, quiet=quiet)
    if as_json:
        console.result_json(audit_json(found))
    else:
        _show(found, out)
    for text in notes(found):
        console.note(f"note: {text}", quiet)
    _raise_what_is_wrong(found)
    if not as_json:
        work_option = work_argument(work)
        console.result(f"Nothing leaks in {found.split.name}. Next: ichtune search --space windows.yaml{work_option}")


def _audit(work: Path, split_file: Path | None, out: Path | None, *, tables_only: bool, quiet: bool) -> AuditResult:
    from ichtune.data.audit.leaks import advice, check_leaks, leaks_of
    from ichtune.data.audit.split_file import plan_split, read_split
    from ichtune.data.label_table import spoilt_labels
    from ichtune.workspace import Workspace

    if out is not None and tables_only:
        raise ConfigError("--out lists near-duplicates, which --tables-only leaves out; give one of them")
    workspace = Workspace(work)
    slices = workspace.slices
    plan = workspace.fold_plan if workspace.about.get("fold_plan_hash") else None
    spoilt = spoilt_labels(workspace.label_issues)
    split = read_split(split_file, slices, spoilt) if split_file else plan_split(slices, plan, spoilt)
    checks = check_leaks(slices, split)
    caches = _check_caches(workspace, read_checksums=not tables_only, quiet=quiet)
    near = None if tables_only or any(cache.problem for cache in caches) else _near(workspace, quiet)
    pairs = _write_pairs(near, split, out)
    sentences = advice(leaks_of(checks), is_plan=split_file is None)
    return AuditResult(slices, split, checks, tuple(caches), near, pairs, tuple(sentences))


def _raise_what_is_wrong(found: AuditResult) -> None:
    problems = [cache.problem for cache in found.caches if cache.problem]
    leaks = [check.leak for check in found.checks if check.leak]
    if leaks:
        said = "; ".join(f"{leak.n_keys:,} {PLURALS[leak.kind]} straddle {leak.across}" for leak in leaks)
        raise ConflictError(" ".join([f"{found.split.name} leaks: {said}.", *found.advice, *problems]))
    if problems:
        raise DataError(" ".join(problems))


def _check_caches(workspace: "Workspace", *, read_checksums: bool, quiet: bool) -> list["CacheCheck"]:
    """Every cache of the workspace, the base one first."""
    from ichtune.data.cache.check import check_cache

    cache_ids = list(dict.fromkeys([workspace.about["cache_id"], *(cache["cache_id"] for cache in workspace.caches)]))
    checked = []
    with console.progress("checking", unit="caches", quiet=quiet or not read_checksums) as bar:
        for number, cache_id in enumerate(cache_ids):
            bar.update(number, len(cache_ids), str(cache_id))
            folder = workspace.layout.hu / str(cache_id)
            checked.append(check_cache(folder, workspace.slices, read_checksums=read_checksums))
        bar.update(len(cache_ids), len(cache_ids))
    return checked


def _near(workspace: "Workspace", quiet: bool) -> "NearDuplicates":
    from ichtune.data.audit.near_duplicates import near_duplicates

    with console.progress("comparing", unit="slices", quiet=quiet) as bar:
        return near_duplicates(workspace.slices, workspace.hu_cache.read, bar.update)


def _write_pairs(near: "NearDuplicates | None", split: "Split", out: Path | None) -> "pd.DataFrame | None":
    from ichtune.data.audit.near_duplicates import with_sides
    from ichtune.tables import whole_file

    if near is None:
        return None
    pairs = with_sides(near.pairs, split)
    if out is not None:
        with whole_file(out) as temporary:
            pairs.to_csv(temporary, index=False)
    return pairs


def _show(found: AuditResult, out: Path | None) -> None:
    console.result(checks_table(found))
    if found.split.fold_names:
        console.result(rates_table(found))
    for cache in found.caches:
        seen = "every byte as it was written" if cache.are_checksums_read else "checksums not read"
        console.result(f"cache {cache.cache_id}: {cache.problem or f'{cache.n_rows:,} rows, {seen}'}")
    if found.near is None or found.pairs is None:
        return
    where = f", all in {out}" if out else ""
    console.result(
        f"near-duplicates of different patients: {len(found.pairs):,} of {found.near.n_candidates:,} candidates, "
        f"{int(found.pairs['straddles'].sum()):,} of them on different sides{where}"
    )
    if len(found.pairs):
        console.result(pairs_table(found.pairs))

"""Memory and time of ``ichtune blend`` on the whole competition: 750,000 labelled slices, 60 runs, six labels.

A workspace is generated, with predictions as runs leave them and no DICOM file, and the command blends it in a process
of its own: members read and checked, blender cross-fitted, post-processing, leak suspicion, members that are alike,
ladder and bootstrap, submission. Fails above ``LIMIT_GIB``.

Dimension key: M members, N slices, L labels.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.correlated_members import correlated_members
from benchmarks.generated_predictions import GeneratedPredictions
from ichtune.data.folds import make_folds, write_folds
from ichtune.ensemble.blenders.logits import from_logits, to_logits
from ichtune.labels import LABELS
from ichtune.layout import Layout
from ichtune.tables import P_COLUMNS, SLICES, write_json, write_parquet, write_table

N_ROWS, N_MEMBERS, N_FOLDS = 750_000, 60, 5
#: Slices without labels, for each one with labels.
UNLABELLED = 0.1
#: What the command may hold at most.
LIMIT_GIB = 8.0
GIB = 2**30
ENSEMBLES = ("auto", "demo")
#: Spread of the fold models of a run about their mean, log odds.
FOLD_SPREAD = 0.1
#: How many functions ``--where`` names.
N_NAMED = 60
#: The command, in a process that looks every so often where it is and what it holds. VmHWM is of this program alone;
#: getrusage would count the process that started it.
CHILD = """
import json, sys, threading, time
from collections import Counter
from ichtune.cli.main import main

def held(key="VmRSS:"):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))

def look(thread, seconds, most):
    then = time.perf_counter()
    while True:
        time.sleep(0.1)
        frame, at = sys._current_frames().get(thread), []
        while frame is not None:
            if "/ichtune/" in frame.f_code.co_filename:
                name = frame.f_code.co_filename.rpartition("/ichtune/")[2]
                at.append((f"{name} {frame.f_code.co_qualname}", frame.f_lineno))
            frame = frame.f_back
        now = time.perf_counter()
        seconds.update(dict.fromkeys({name for name, _ in at}, now - then))
        then, rss = now, held()
        called = [name for name, _ in at[: next((i for i, one in enumerate(at) if "run_blend" in one[0]), 0)]]
        for key in ("everywhere", called[-1] if called else "outside of run_blend"):
            if rss > most.get(key, [0])[0]:
                most[key] = [rss, [f"{name}:{line}" for name, line in at[:5]]]

seconds, most = Counter(), {}
threading.Thread(target=look, args=(threading.get_ident(), seconds, most), daemon=True).start()
code = main(sys.argv[2:])
told = {"code": code, "peak_kib": held("VmHWM:"), "most": dict(most), "seconds": dict(seconds)}
told["busy_s"] = time.process_time()
with open(sys.argv[1], "w") as file:
    json.dump(told, file)
"""

Rows = Iterator[tuple[str, str, str]]


def measure(
    n_rows: int = N_ROWS, n_members: int = N_MEMBERS, ensembles: Sequence[str] = ENSEMBLES, where: bool = False
) -> Rows:
    """Yield peak memory and time of the command.

    Args:
        n_rows: labelled slices.
        n_members: runs.
        ensembles: what ``--ensemble`` says, one run after the other.
        where: whether to yield too where memory was held and where time went.

    Raises:
        RuntimeError: the command failed, or held more than ``LIMIT_GIB``.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "work"
        write_workspace(root, n_rows, n_members)
        for ensemble in ensembles:
            told, about, seconds = _blend(root, ensemble, Path(name) / "told.json")
            held = n_rows * n_members * len(LABELS) * 4 / GIB
            peak = told["peak_kib"] * 1024 / GIB
            size = f"{about['n_slices']:,} slices, {len(about['members'])} members, {len(LABELS)} labels"
            yield (
                f"peak memory of `ichtune blend --ensemble {ensemble}`, GiB",
                f"**{peak:.2f}**",
                f"{size}, {about['n_test_slices']:,} slices to submit; {held:.2f} GiB are the out-of-fold predictions "
                f"as float32; {_outcome(about)}",
            )
            took = f"{told['busy_s'] / 60:.1f} minutes of processor time"
            yield f"time of `ichtune blend --ensemble {ensemble}`, minutes", f"{seconds / 60:.1f}", f"{size}; {took}"
            if where:
                yield from _where(told)
            if peak > LIMIT_GIB:
                raise RuntimeError(f"`ichtune blend --ensemble {ensemble}` held {peak:.2f} GiB, above {LIMIT_GIB:g}")


def _where(told: dict[str, Any]) -> Rows:
    for stage, (kib, at) in told["most"].items():
        yield f"most memory, {stage}", f"{kib * 1024 / GIB:.2f} GiB", " < ".join(at)
    for place, took in sorted(told["seconds"].items(), key=lambda one: -one[1])[:N_NAMED]:
        yield "seconds in", f"{took:.1f}", place


def write_workspace(root: Path, n_rows: int, n_members: int) -> None:
    """Write slices, folds and the predictions of every run, as ``prepare`` and ``train`` leave them."""
    made = correlated_members(n_rows + round(UNLABELLED * n_rows), n_members, dtype=np.float32)
    slices = _slices(made, n_rows)
    layout = Layout(root)
    write_table(slices, layout.slices, SLICES)
    plan = make_folds(slices, N_FOLDS, seed=7)
    write_folds(plan, layout.folds)
    about = {"fold_plan_hash": plan.plan_hash, "k": N_FOLDS, "seed": 7, "cache_id": None, "generated": True}
    write_json(about, layout.workspace_json)
    is_labelled = slices["is_labelled"].to_numpy()
    fold_N = np.asarray(plan.folds_for(slices["patient_id"]))
    ids_N = slices["image_id"].to_numpy(object)
    oof = np.flatnonzero(is_labelled)[np.argsort(fold_N[is_labelled], kind="stable")]  # fold after fold
    test = np.flatnonzero(~is_labelled)
    oof_keys = pa.array(ids_N[oof], pa.string()), fold_N[oof]
    test_keys = pa.array(np.tile(ids_N[test], N_FOLDS), pa.string()), np.repeat(np.arange(N_FOLDS), len(test))
    rng = np.random.default_rng(7)
    for m, p_NL in enumerate(made.p_MNL):
        recipe_id = f"{m:012x}"
        inputs = {"fold_plan_hash": plan.plan_hash, "recipe_id": recipe_id}
        z_TL = np.tile(to_logits(p_NL[test]), (N_FOLDS, 1))
        z_TL += FOLD_SPREAD * rng.standard_normal(z_TL.shape)
        write_parquet(_predictions(recipe_id, *oof_keys, p_NL[oof]), layout.oof(recipe_id), inputs)
        write_parquet(_predictions(recipe_id, *test_keys, from_logits(z_TL)), layout.test(recipe_id), inputs)
        write_json({"recipe": {}, "summary": f"net {m}"}, layout.runs / recipe_id / "recipe.json")


def _slices(made: GeneratedPredictions, n_rows: int) -> pd.DataFrame:
    """Return a SliceTable with texts as long as the competition's; patients after ``n_rows`` slices have no labels."""
    n = len(made.y_NL)
    is_labelled = made.patient_N <= made.patient_N[n_rows - 1]
    texts = {
        "image_id": [f"ID_{i:09x}" for i in range(n)],
        "patient_id": [f"ID_{p:08x}" for p in made.patient_N],
        "dicom_study_uid": [f"ID_{s:010x}" for s in made.series_N],
        "series_instance_uid": [f"ID_{s:010x}" for s in made.series_N],
        "path": [f"stage_2_train/ID_{i:09x}.dcm" for i in range(n)],
        "content_hash": [f"{i:032x}" for i in range(n)],
        "near_hash": [f"{i:016x}" for i in range(n)],
        "encoding": ["plain"] * n,
        "ordered_by": ["position"] * n,
        "status": ["ok"] * n,
    }
    texts["sop_instance_uid"] = texts["image_id"]
    empty = {column: "" if dtype == "string" else 0 for column, dtype in SLICES.columns.items()}
    frame = pd.DataFrame({column: texts.get(column, [value] * n) for column, value in empty.items()})
    new_series = np.concatenate([[True], made.series_N[1:] != made.series_N[:-1]])
    frame["slice_rank"] = np.arange(n) - np.flatnonzero(new_series)[np.cumsum(new_series) - 1]
    frame["frame_number"] = frame["n_at_position"] = 1
    frame["is_labelled"] = is_labelled
    frame[list(LABELS)] = np.where(is_labelled[:, None], made.y_NL, np.nan)
    return frame


def _predictions(recipe_id: str, image_ids: pa.Array, fold_N: np.ndarray, p_NL: np.ndarray) -> pa.Table:
    columns = {"recipe_id": pa.array([recipe_id] * len(p_NL), pa.string()), "fold": pa.array(fold_N, pa.int32())}
    columns["image_id"] = image_ids
    for column, p_N in zip(P_COLUMNS, p_NL.T, strict=True):
        columns[column] = pa.array(p_N.astype(np.float32).astype(np.float64))  # what a network says has 24 bits
    return pa.table(columns)


def _blend(root: Path, ensemble: str, told_at: Path) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Run the command; return what the process told of itself, blend.json, and seconds."""
    command = [sys.executable, "-c", CHILD, str(told_at), "blend", "--work", str(root), "--ensemble", ensemble]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    told = json.loads(told_at.read_text(encoding="utf-8")) if told_at.is_file() else {"code": done.returncode}
    if told["code"] != 0 or "peak_kib" not in told:
        raise RuntimeError(f"`ichtune blend --ensemble {ensemble}` ended with {told['code']}: {done.stderr[-2000:]}")
    told_at.unlink()
    latest = max(root.glob("blends/*/blend.json"), key=lambda path: path.stat().st_mtime)
    about = json.loads(latest.read_text(encoding="utf-8"))
    with (root / "submission.csv").open(encoding="utf-8") as lines:
        n_written = sum(1 for _ in lines) - 1
    if n_written != about["n_test_slices"] * len(LABELS):
        raise RuntimeError(f"the submission has {n_written} rows for {about['n_test_slices']} slices")
    return told, about, seconds


def _outcome(about: dict[str, Any]) -> str:
    loss, suspected = about["loss"]["crossfit_loss"], len(about["suspicions"])
    return f"cross-fitted loss {loss:.5f}, {suspected} members suspected of a leak, {len(about['alike'])} pairs alike"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=N_ROWS)
    parser.add_argument("--members", type=int, default=N_MEMBERS)
    parser.add_argument("--ensemble", nargs="+", default=ENSEMBLES)
    parser.add_argument("--where", action="store_true", help="say where memory was held and time went")
    given = parser.parse_args()
    for row in measure(given.rows, given.members, given.ensemble, given.where):
        print(*row, sep="  ", flush=True)

"""Generated head CT with known truth, written in the competition's own layout.

The anatomy, the bleeds and the scanner live in ``phantom_anatomy``, ``phantom_bleeds``, ``phantom_compose``
and ``phantom_scan``; who gets what in ``phantom_plan``; the files' bytes in ``phantom_headers``. Whatever is
trained on it must be called generated data.
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ichtune.data.phantom.anatomy import Head, draw_head
from ichtune.data.phantom.bleeds import INTRAVENTRICULAR, MIN_AREA_MM2, draw_bleeds, draw_mimics
from ichtune.data.phantom.folder import MANIFEST
from ichtune.data.phantom.headers import (
    ENCODINGS,
    Encoding,
    SeriesHeader,
    encode_file,
    stored_pixels,
    write_file,
)
from ichtune.data.phantom.plan import SeriesPlan, hashed_id, plan_series
from ichtune.data.phantom.scan import Rendered, Scan, draw_scan, render_series
from ichtune.errors import ConfigError, DataError, StorageError
from ichtune.labels import ANY, SUBTYPES
from ichtune.version import __version__

SCHEMA_VERSION = 1
CSV_LABELS = (*SUBTYPES, ANY)
TRAIN_DIR, TEST_DIR = "stage_2_train", "stage_2_test"
TRAIN_CSV, SAMPLE_CSV, TRUTH_CSV = "stage_2_train.csv", "stage_2_sample_submission.csv", "truth.csv"
_MAX_PROCESSES = 8
_N_DRAWS = 4
_P_NO_WINDOW = 0.04
_WINDOWS = ((30, 80, 0.37), (36, 80, 0.33), (40, 80, 0.20), (35, 100, 0.06), (47, 90, 0.02), (50, 100, 0.02))
_P_MISSED_BORDER, _P_EXTENDED_BORDER = 0.16, 0.08

Labels = dict[str, tuple[int, ...]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PhantomSpec:
    """What a phantom is made from; equal specs give equal bytes.

    Attributes:
        n_patients: patients over train and test together.
        size_px: side of the files' matrix (512 in the competition's).
        difficulty: 1 is the reference; more means more noise, less contrast and more distractors.
        seed: not negative.
        test_fraction: share of patients whose slices go to the test folder; no patient is in both.
        broken_12bit_rate: share of series with the broken 12-bit wrap; unless it is 0, at least one series of
            each of the two forms from 12 series on.
    """

    n_patients: int = 120
    size_px: int = 128
    difficulty: float = 1.0
    seed: int = 7
    test_fraction: float = 0.25
    broken_12bit_rate: float = 0.02

    def __post_init__(self) -> None:
        _check(self.n_patients >= 2, "n_patients", self.n_patients, "at least 2")
        _check(32 <= self.size_px <= 1024, "size_px", self.size_px, "32 to 1024")
        _check(0.0 < self.difficulty <= 10.0, "difficulty", self.difficulty, "more than 0, at most 10")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        _check(0.0 <= self.test_fraction < 1.0, "test_fraction", self.test_fraction, "0 to below 1")
        _check(0.0 <= self.broken_12bit_rate <= 1.0, "broken_12bit_rate", self.broken_12bit_rate, "0 to 1")


def _check(is_right: bool, name: str, got: object, expected: str) -> None:
    if not is_right:
        raise ConfigError(f"Phantom {name} is out of range: got {got}, expected {expected}. Change {name}.")


@dataclass(frozen=True)
class PhantomSummary:
    """What a phantom holds. ``label_counts`` are positive images over train and test, by label."""

    n_patients: int
    n_studies: int
    n_series: int
    n_train: int
    n_test: int
    label_counts: dict[str, int]
    encoding_counts: dict[str, int]
    truncated_image: str
    duplicated_image: str


@dataclass(frozen=True)
class _Written:
    """What one task wrote: labels (0 or 1, in the order of the competition's rows) by image id."""

    plan: SeriesPlan
    labels: Labels


def read_border_noise(truth: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Label a series as readers do: unsure where a bleed begins and ends.

    Args:
        truth: what is there, bool (N, 5), feet to head.
        rng: the series' generator.

    Returns:
        What is labelled, bool (N, 5): the first and last slice of a run is sometimes missed, the slice next
        to it sometimes added. A run never vanishes.
    """
    labels = truth.copy()
    n_slices = truth.shape[0]
    for column in range(truth.shape[1]):
        edges = np.diff(np.concatenate([[False], truth[:, column], [False]]).astype(np.int8))
        for first, stop in zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True):
            for border, beyond in ((first, first - 1), (stop - 1, stop)):
                draw = float(rng.random())
                if draw < _P_MISSED_BORDER and stop - first > 2:
                    labels[border, column] = False
                elif draw > 1.0 - _P_EXTENDED_BORDER and 0 <= beyond < n_slices:
                    labels[beyond, column] = True
    return labels


def _rng(spec: PhantomSpec, *path: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([spec.seed, *path])))


def _draw_window(rng: np.random.Generator) -> tuple[str, str]:
    """The window's centre and width as the header spells them; empty where the tags are absent."""
    draw, form, missing = (float(v) for v in rng.random(3))
    centre, width = _WINDOWS[-1][:2]
    for c, w, share in _WINDOWS:
        if draw < share:
            centre, width = c, w
            break
        draw -= share
    if missing < _P_NO_WINDOW:
        return "", ""
    if centre == 36:  # these scanners pad with zeros, and often give the window twice
        times = 2 if form < 0.7 else 1
        return "\\".join([f"{centre:05d}"] * times), "\\".join([f"{width:05d}"] * times)
    if form < 0.15:
        return f"{centre}\\{centre + 560}", f"{width}\\2800"
    return str(centre), str(width)


def _header(rng: np.random.Generator, plan: SeriesPlan, spec: PhantomSpec, scan: Scan) -> SeriesHeader:
    encoding = ENCODINGS[plan.encoding]
    window_centre, window_width = _draw_window(rng)
    has_study_id = float(rng.random()) < 0.9
    c, s = scan.tilt
    return SeriesHeader(
        patient_id=hashed_id(spec.seed, "patient", plan.patient, digits=8),
        study_uid=hashed_id(spec.seed, "study", plan.patient, plan.study, digits=10),
        series_uid=hashed_id(spec.seed, "series", plan.patient, plan.study, digits=10),
        encoding=encoding,
        window_centre=window_centre,
        window_width=window_width,
        has_study_id=has_study_id,
        has_padding_tag=_has_padding(encoding, float(rng.random())),
        pixel_mm=scan.pixel_mm,
        orientation=(1.0, 0.0, 0.0, 0.0, c, -s),
    )


def _has_padding(encoding: Encoding, draw: float) -> bool:
    return encoding.signed and encoding.bits_stored == 16 and draw < 0.5


def _render_with(
    rng: np.random.Generator, head: Head, scan: Scan, subtypes: frozenset[str], difficulty: float
) -> tuple[Rendered, NDArray[np.bool_]]:
    """Render a series that shows exactly the planned subtypes; bleeds that hit nothing are drawn again."""
    wanted = np.array([s in subtypes for s in SUBTYPES])
    least_mm2 = np.array([MIN_AREA_MM2[s] for s in SUBTYPES])
    for _ in range(_N_DRAWS):
        lesions = draw_bleeds(rng, subtypes, difficulty) + draw_mimics(rng, difficulty)
        rendered = render_series(rng, head, lesions, scan)
        truth = rendered.area_mm2 > least_mm2
        if (truth.any(axis=0) == wanted).all():
            break
    return rendered, truth


def _write_series(out: Path, spec: PhantomSpec, plan: SeriesPlan, has_truncated: bool) -> _Written:
    """Render one series and write its files; the truncated one is its middle slice."""
    head = draw_head(_rng(spec, plan.patient, 0), spec.difficulty)
    rng = _rng(spec, plan.patient, 1 + plan.study)
    scan = draw_scan(rng, spec.size_px, spec.difficulty)
    header = _header(rng, plan, spec, scan)
    if INTRAVENTRICULAR in plan.subtypes:  # blood widens the ventricles
        head = replace(head, ventricle_mm=max(head.ventricle_mm, 1.6))
    rendered, truth = _render_with(rng, head, scan, plan.subtypes, spec.difficulty)
    labels = read_border_noise(truth, rng)
    folder = out / (TEST_DIR if plan.is_test else TRAIN_DIR)
    by_id: Labels = {}
    n_slices = len(scan.table_mm)
    for k in range(n_slices):
        image_id = hashed_id(spec.seed, "image", plan.patient, plan.study, k)
        stored = stored_pixels(rendered.hu[k], rendered.outside, header.encoding)
        content = encode_file(header, image_id, scan.corner_mm(k), stored)
        write_file(folder / f"{image_id}.dcm", content, truncated=has_truncated and k == n_slices // 2)
        row = tuple(int(v) for v in labels[k])
        by_id[image_id] = (*row, max(row))
    return _Written(plan, by_id)


def _write_all(
    out: Path,
    spec: PhantomSpec,
    plans: tuple[SeriesPlan, ...],
    n_processes: int,
    on_progress: Progress | None,
) -> list[_Written]:
    truncated = next((i for i, p in enumerate(plans) if not p.is_test and not p.subtypes), 0)
    done: list[_Written] = []

    def finish(written: _Written) -> None:
        done.append(written)
        if on_progress:
            on_progress(len(done), len(plans))

    if n_processes == 1 or len(plans) < 2:
        for i, plan in enumerate(plans):
            finish(_write_series(out, spec, plan, i == truncated))
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(n_processes, len(plans)), mp_context=context) as pool:
            tasks = [pool.submit(_write_series, out, spec, p, i == truncated) for i, p in enumerate(plans)]
            try:
                for task in as_completed(tasks):
                    finish(task.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return sorted(done, key=lambda w: (w.plan.patient, w.plan.study))


def _label_rows(labels: Labels, images: Iterable[str]) -> Iterable[str]:
    return (f"{i}_{name},{v}\n" for i in images for name, v in zip(CSV_LABELS, labels[i], strict=True))


def _write_tables(out: Path, written: list[_Written]) -> tuple[Labels, Labels, str]:
    """Write the three CSV files; ids are in the order of their hashes, one train image stands twice."""
    train: Labels = {}
    test: Labels = {}
    for w in written:
        (test if w.plan.is_test else train).update(w.labels)
    order = sorted(train)
    duplicated = order[len(order) // 3]
    rows = [*_label_rows(train, order), *_label_rows(train, [duplicated])]
    (out / TRAIN_CSV).write_text("ID,Label\n" + "".join(rows), encoding="ascii")
    (out / TRUTH_CSV).write_text("ID,Label\n" + "".join(_label_rows(test, sorted(test))), encoding="ascii")
    sample = (f"{i}_{name},0.5\n" for i in sorted(test) for name in CSV_LABELS)
    (out / SAMPLE_CSV).write_text("ID,Label\n" + "".join(sample), encoding="ascii")
    return train, test, duplicated


def _summarise(spec: PhantomSpec, out: Path, written: list[_Written]) -> PhantomSummary:
    train, test, duplicated = _write_tables(out, written)
    full_size = max(p.stat().st_size for p in sorted((out / TRAIN_DIR).iterdir()))
    sizes = {p.stem: p.stat().st_size for p in sorted((out / TRAIN_DIR).iterdir())}
    positive = [sum(row[i] for part in (train, test) for row in part.values()) for i in range(len(CSV_LABELS))]
    encodings = [w.plan.encoding for w in written]
    return PhantomSummary(
        n_patients=spec.n_patients,
        n_studies=len(written),
        n_series=len(written),
        n_train=len(train),
        n_test=len(test),
        label_counts=dict(zip(CSV_LABELS, positive, strict=True)),
        encoding_counts={e.name: encodings.count(i) for i, e in enumerate(ENCODINGS)},
        truncated_image=next(i for i, size in sizes.items() if size < full_size // 2),
        duplicated_image=duplicated,
    )


def _manifest(spec: PhantomSpec, summary: PhantomSummary | None) -> str:
    content = {
        "what": "Generated head CT (ichtune phantom): no patient is real, results are on generated data.",
        "schema_version": SCHEMA_VERSION,
        "ichtune_version": __version__,
        "complete": summary is not None,
        "spec": asdict(spec),
        "summary": asdict(summary) if summary else None,
    }
    return json.dumps(content, indent=2) + "\n"


def _found(out: Path, spec: PhantomSpec) -> PhantomSummary | None:
    """The finished phantom of this spec in ``out``, None if there is none; refuses any other content."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir():
        raise DataError(f"{out} is a file, expected a folder or nothing. Give another folder.")
    path = out / MANIFEST
    if not path.is_file():
        raise DataError(f"{out} is not empty and no phantom (no {MANIFEST}). Give a new or empty folder.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, schema, summary = content["spec"], content["schema_version"], content["summary"]
        is_complete = bool(content["complete"])
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(f"{path} cannot be read: {e!r}. Delete {out} or give another folder.") from e
    differing = [f"{k} {found.get(k)!r} (asked: {v!r})" for k, v in asdict(spec).items() if found.get(k) != v]
    if schema != SCHEMA_VERSION:
        differing.append(f"schema_version {schema!r} (asked: {SCHEMA_VERSION})")
    if differing:
        raise DataError(
            f"{out} holds another phantom: {', '.join(differing)}. Give another folder, or delete this one."
        )
    return PhantomSummary(**summary) if is_complete else None


def write_phantom(
    out: Path, spec: PhantomSpec, *, n_processes: int | None = None, on_progress: Progress | None = None
) -> PhantomSummary:
    """Write a phantom: DICOM files, label tables, hidden truth and a manifest.

    The same spec gives the same bytes on every machine and with any number of processes. A finished phantom
    of the same spec is left as it is; an interrupted one is made anew.

    Args:
        out: folder to write; new, empty, or a phantom of the same spec.
        spec: what to make.
        n_processes: worker processes (spawned, so a script needs a ``__main__`` guard); by default one a CPU
            core, at most 8; 1 works in this process.
        on_progress: called with (series done, series in all) in this process.

    Returns:
        What the phantom holds.

    Raises:
        ConfigError: ``n_processes`` is below 1.
        DataError: ``out`` holds something else.
        StorageError: ``out`` cannot be written.
    """
    out = Path(out)
    if n_processes is not None and n_processes < 1:
        raise ConfigError(f"n_processes must be at least 1, got {n_processes}.")
    if (found := _found(out, spec)) is not None:
        return found
    plans = plan_series(spec.n_patients, spec.test_fraction, spec.broken_12bit_rate, spec.seed)
    try:
        for folder in (TRAIN_DIR, TEST_DIR):
            shutil.rmtree(out / folder, ignore_errors=True)
            (out / folder).mkdir(parents=True)
        (out / MANIFEST).write_text(_manifest(spec, None), encoding="utf-8")
        n = n_processes or min(_MAX_PROCESSES, os.cpu_count() or 1)
        summary = _summarise(spec, out, _write_all(out, spec, plans, n, on_progress))
        (out / MANIFEST).write_text(_manifest(spec, summary), encoding="utf-8")
    except OSError as e:
        raise StorageError(f"Cannot write the phantom to {out}: {e}. Free space or give another folder.") from e
    return summary

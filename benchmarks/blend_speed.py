"""What a blend of 60 members costs: weights beside SLSQP and greedy selection, the metric beside scikit-learn, memory.

Generated predictions with patients, series and slices in order. Every comparison is made in one process, two threads
each, the two sides in turn, the best time of each. SLSQP gets its inputs ready made and turned (what the label says),
forms value and gradient from one mixture with BLAS, and stops at the loosest tolerance that ends within 1e-6 of the
loss of ours; ours starts from the predictions and counts everything, its checks included. Greedy selection follows
AutoGluon's published rule, written here: each of 25 rounds scores the mean with each member added.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from scipy.optimize import OptimizeResult, minimize
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from benchmarks.generated_predictions import GeneratedPredictions, generate_predictions
from ichtune.ensemble.blenders import blocks
from ichtune.ensemble.blenders.convex import Convex
from ichtune.ensemble.blenders.logits import clip_probabilities
from ichtune.labels import METRIC_WEIGHTS
from ichtune.metrics import CLIP, weighted_log_loss

N_ROWS, N_MEMBERS, N_THREADS = 750_000, 60, 2
#: Greedy selection: rounds that are claimed, and rounds that are measured; each does the same work.
ROUNDS, MEASURED_ROUNDS = 25, 2
SAME_LOSS = 1e-6
SHARE_L = np.asarray(METRIC_WEIGHTS) / sum(METRIC_WEIGHTS)
#: Prints the peak memory of fit and predict, and how much the predictions take, in bytes.
CHILD = """
import sys
import numpy as np
from benchmarks.generated_predictions import generate_predictions
from ichtune.ensemble.blenders.convex import Convex

def status(key):
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

made = generate_predictions(int(sys.argv[1]), int(sys.argv[2]), dtype=np.dtype(sys.argv[3]).type)
before = status("VmRSS")
with open("/proc/self/clear_refs", "w") as marks:
    marks.write("5")  # the peak from now on
Convex(sys.argv[4]).fit(made.p_MNL, made.y_NL).predict(made.p_MNL)
print(status("VmHWM"), before, made.p_MNL.nbytes)
"""

Rows = Iterator[tuple[str, str, str]]
Timed = Callable[[], object]
Metric = Callable[[np.ndarray, np.ndarray], float]


def measure(n_rows: int = N_ROWS) -> Rows:
    yield from _memory(n_rows)
    with threadpool_limits(N_THREADS), at_most_threads(N_THREADS):
        made = generate_predictions(n_rows, N_MEMBERS)
        for space in ("probability", "logit"):
            yield from _convex_beside_slsqp(made, space)
        yield from _convex_beside_greedy(made)
        yield from _metric(made)


@contextmanager
def at_most_threads(n: int) -> Iterator[None]:
    usual, blocks.MAX_THREADS = blocks.MAX_THREADS, n
    try:
        yield
    finally:
        blocks.MAX_THREADS = usual


def _convex_beside_slsqp(made: GeneratedPredictions, space: str, n_times: int = 4) -> Rows:
    blender = Convex(space).fit(made.p_MNL, made.y_NL)
    assert blender.weights_ is not None
    prepared = best_of(lambda: slsqp_objective(made, space), 2)
    objective = slsqp_objective(made, space)
    least = objective(blender.weights_[:, 0])[0]
    for tolerance in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10):
        found = slsqp(objective, N_MEMBERS, tolerance)
        if found.fun - least <= SAME_LOSS:
            break
    ours, theirs = best_in_turn(
        lambda: Convex(space).fit(made.p_MNL, made.y_NL),
        lambda: slsqp(objective, N_MEMBERS, tolerance),
        n_times,
    )
    whole = tuple(solving + preparing for solving, preparing in zip(theirs, prepared, strict=True))
    yield (
        f"convex weights, {space} space: SLSQP with analytic gradients beside ours, to the same loss",
        f"**{theirs[0] / ours[0]:.1f}**",
        f"{_sized(made)}: {theirs[0]:.2f} s beside {ours[0]:.2f} s, best of {n_times} pairs in turn; in processor time "
        f"{theirs[1]:.2f} s beside {ours[1]:.2f} s ({theirs[1] / ours[1]:.1f}); with the preparation of SLSQP's inputs "
        f"{whole[0]:.2f} s ({whole[0] / ours[0]:.1f}), in processor time {whole[1]:.2f} s ({whole[1] / ours[1]:.1f}); "
        f"tolerance {tolerance:g}, {found.nfev} evaluations, loss {found.fun - least:+.1e} beside ours, certified to "
        f"{blender.gap_:.0e}",
    )


def _convex_beside_greedy(made: GeneratedPredictions, n_times: int = 3) -> Rows:
    for metric, named in ((plain_log_loss, "a plain numpy metric"), (weighted_log_loss, "this package's fast metric")):
        greedy = partial(greedy_rounds, made.p_MNL, made.y_NL, MEASURED_ROUNDS, metric)
        ours, theirs = best_in_turn(lambda: Convex("probability").fit(made.p_MNL, made.y_NL), greedy, n_times, 1)
        scale = ROUNDS / MEASURED_ROUNDS
        yield (
            f"convex weights, probability space: {ROUNDS} rounds of greedy selection, AutoGluon's rule with {named}, "
            "beside ours",
            f"**{scale * theirs[0] / ours[0]:.0f}**",
            f"{_sized(made)}: {scale * theirs[0]:.0f} s beside {ours[0]:.2f} s, in processor time "
            f"{scale * theirs[1]:.0f} s beside {ours[1]:.2f} s; {MEASURED_ROUNDS} rounds measured, each does the same "
            "work; the rule written here",
        )


def plain_log_loss(y_NL: np.ndarray, p_NL: np.ndarray) -> float:
    """Return the weighted log loss as one writes it down."""
    p_NL = np.clip(p_NL, 1e-6, 1.0 - 1e-6)
    return float((-(y_NL * np.log(p_NL) + (1.0 - y_NL) * np.log(1.0 - p_NL))).mean(axis=0) @ SHARE_L)


def _metric(made: GeneratedPredictions, n_times: int = 5) -> Rows:
    y_NL, p_NL = made.y_NL, clip_probabilities(made.p_MNL[0])  # scikit-learn clips nowhere near as early

    def by_label() -> float:
        losses = [log_loss(y_N, p_N) for y_N, p_N in zip(y_NL.T, p_NL.T, strict=True)]
        return float(SHARE_L @ losses)

    difference = abs(weighted_log_loss(y_NL, p_NL) - by_label())
    ours, theirs = best_in_turn(lambda: weighted_log_loss(y_NL, p_NL), by_label, n_times)
    yield (
        "weighted log loss: scikit-learn's `log_loss` label by label beside ours",
        f"**{theirs[0] / ours[0]:.0f}**",
        f"{len(y_NL):,} slices, 6 labels: {1e3 * theirs[0]:.0f} ms beside {1e3 * ours[0]:.0f} ms, best of {n_times} in "
        f"turn; they differ by {difference:.0e}",
    )


def _memory(n_rows: int) -> Rows:
    for dtype, space in (("float64", "logit"), ("float32", "logit"), ("float64", "probability")):
        arguments = [str(n_rows), str(N_MEMBERS), dtype, space]
        child = subprocess.run(
            [sys.executable, "-c", CHILD, *arguments], check=True, capture_output=True, text=True, env=dict(os.environ)
        )
        peak, before, size = map(int, child.stdout.split())
        yield (
            f"peak memory of fit and predict beside the predictions themselves, {dtype}, {space} space",
            f"{peak / size:.2f}",
            f"{n_rows:,} slices, {N_MEMBERS} members, 6 labels: {peak / 1e9:.2f} GB beside {size / 1e9:.2f} GB; "
            f"{(peak - before) / 1e9:.2f} GB on top of what was there before; all that a fresh process holds",
        )


def slsqp_objective(made: GeneratedPredictions, space: str) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return loss and gradient by shared weights, from inputs that are turned to what the label says."""
    weight_E = np.tile(SHARE_L / len(made.y_NL), len(made.y_NL))
    x_ME = np.empty((len(made.p_MNL), len(weight_E)))
    sign_E = 2.0 * made.y_NL.ravel() - 1.0
    no_E = 1.0 - made.y_NL.ravel()
    for x_E, p_NL in zip(x_ME, made.p_MNL, strict=True):
        np.clip(p_NL.ravel(), CLIP, 1.0 - CLIP, out=x_E)
        if space == "probability":
            np.subtract(x_E, no_E, out=x_E)
            np.abs(x_E, out=x_E)
        else:
            np.divide(x_E, 1.0 - x_E, out=x_E)
            np.log(x_E, out=x_E)
            np.multiply(x_E, sign_E, out=x_E)

    def of_probabilities(w: np.ndarray) -> tuple[float, np.ndarray]:
        mixed_E = w @ x_ME
        slope_E = weight_E / mixed_E
        np.log(mixed_E, out=mixed_E)
        return -float(weight_E @ mixed_E), -(x_ME @ slope_E)

    def of_log_odds(w: np.ndarray) -> tuple[float, np.ndarray]:
        odds_E = np.exp(-(w @ x_ME))  # within 14 of nought: no overflow
        slope_E = weight_E * (odds_E / (1.0 + odds_E))
        np.log1p(odds_E, out=odds_E)
        return float(weight_E @ odds_E), -(x_ME @ slope_E)

    return of_probabilities if space == "probability" else of_log_odds


def slsqp(objective: Callable[[np.ndarray], tuple[float, np.ndarray]], n: int, tolerance: float) -> OptimizeResult:
    return minimize(
        objective,
        np.full(n, 1.0 / n),
        jac=True,
        bounds=[(0.0, 1.0)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(n)},
        method="SLSQP",
        options={"ftol": tolerance, "maxiter": 500},
    )


def greedy_rounds(p_MNL: np.ndarray, y_NL: np.ndarray, rounds: int, metric: Metric = weighted_log_loss) -> list[int]:
    """Add members one by one, with replacement, each time the one whose mean with those before scores best."""
    total_NL = np.zeros(p_MNL.shape[1:])
    picked: list[int] = []
    for n_picked in range(rounds):
        scores = [metric(y_NL, (total_NL + p_NL) / (n_picked + 1)) for p_NL in p_MNL]
        picked.append(int(np.argmin(scores)))
        total_NL += p_MNL[picked[-1]]
    return picked


def best_in_turn(
    one: Timed, other: Timed, n_times: int, n_other: int | None = None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the least (seconds, seconds of processor time) of each, measured in turn, twice each.

    The first of two shares the cores with the other side's threads, which go on waiting at full load after their work.
    """
    times_one, times_other = [], []
    for i in range(n_times):
        times_one.append(best_of(one, 2))
        if n_other is None or i < n_other:
            times_other.append(best_of(other, 2))
    return _least(times_one), _least(times_other)


def best_of(work: Timed, n_times: int) -> tuple[float, float]:
    """Return the least seconds and seconds of processor time."""
    taken = []
    for _ in range(n_times):
        start, busy = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - start, time.process_time() - busy))
    return _least(taken)


def _least(taken: list[tuple[float, float]]) -> tuple[float, float]:
    return min(seconds for seconds, _ in taken), min(busy for _, busy in taken)


def _sized(made: GeneratedPredictions) -> str:
    n_members, n_rows, n_labels = made.p_MNL.shape
    return f"{n_members} members, {n_rows:,} slices, {n_labels} labels"

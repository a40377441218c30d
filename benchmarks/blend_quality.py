"""How good the blends are: auto against what others would do, on generated members and on real ones.

Generated: fitted on half of the patients, scored on the other half. Real: the predictions of fourteen networks and six
readers that nobody here made, cross-fitted on random splits.

Dimension key: M members, N slices, L labels.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from benchmarks.correlated_members import correlated_members
from benchmarks.generated_predictions import GeneratedPredictions
from ichtune.ensemble.blenders.auto import Auto
from ichtune.ensemble.blenders.logits import to_logits
from ichtune.ensemble.blenders.table import create_blender
from ichtune.ensemble.crossfit import crossfit
from ichtune.ensemble.scores.differences import differences_to_reference
from ichtune.labels import METRIC_WEIGHTS
from ichtune.metrics import CLIP, slice_losses, weighted_log_loss

N_ROWS, N_MEMBERS = 100_000, (5, 15, 30, 60)
ECG = Path(__file__).resolve().parents[2] / "shared" / "data" / "ensemble_ecg" / "pack.npz"
ECG_SPLITS, ECG_FOLDS = 6, 5

#: Fits on members, labels and patients, and returns what predicts other slices of the same members.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def ours(name: str, **settings: object) -> Fit:
    """A blender of the table."""

    def fit(p_MNL: np.ndarray, y_NL: np.ndarray, patient_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return create_blender(name, settings).fit(p_MNL, y_NL, None, patient_N).predict

    return fit


def slsqp_simplex(p_MNL: np.ndarray, y_NL: np.ndarray, patient_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Shared weights of probabilities by scipy, with the analytic gradient: what a careful competitor writes."""
    share_L = np.asarray(METRIC_WEIGHTS) / sum(METRIC_WEIGHTS) / len(y_NL)
    q_ME = np.clip(np.where(y_NL == 1, p_MNL, 1.0 - p_MNL), CLIP, 1.0).reshape(len(p_MNL), -1)
    share_E = np.tile(share_L, len(y_NL))

    def loss(w_M: np.ndarray) -> tuple[float, np.ndarray]:
        q_E = w_M @ q_ME
        return -float(share_E @ np.log(q_E)), -(q_ME @ (share_E / q_E))

    n_members = len(p_MNL)
    found = minimize(
        loss,
        np.full(n_members, 1.0 / n_members),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * n_members,
        constraints={"type": "eq", "fun": lambda w_M: w_M.sum() - 1.0, "jac": np.ones_like},
        options={"ftol": 1e-9, "maxiter": 500},
    )
    return lambda p_MTL: np.tensordot(found.x, p_MTL, 1)


def logistic_stacking(p_MNL: np.ndarray, y_NL: np.ndarray, patient_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """scikit-learn's logistic regression on log odds, label by label, as it comes but for the iterations."""
    models = [
        LogisticRegression(max_iter=1000).fit(to_logits(p_MNL[:, :, label]).T, y_NL[:, label])
        for label in range(y_NL.shape[1])
    ]

    def predict(p_MTL: np.ndarray) -> np.ndarray:
        columns = [model.predict_proba(to_logits(p_MTL[:, :, i]).T)[:, 1] for i, model in enumerate(models)]
        return np.stack(columns, axis=1)

    return predict


OTHERS: dict[str, Fit] = {
    "equal mean": ours("equal_mean"),
    "greedy": ours("greedy", space="probability", bags=1),
    "SLSQP simplex": slsqp_simplex,
    "logistic stacking": logistic_stacking,
}
CONVEX, AUTO = "convex", "auto"


def measure() -> Iterator[tuple[str, str, str]]:
    for n_members in N_MEMBERS:
        yield from held_out(correlated_members(N_ROWS, n_members), f"{n_members} members that differ")
    yield from held_out(correlated_members(N_ROWS, 15, differ=False), "15 members alike")
    yield from real()


def held_out(made: GeneratedPredictions, name: str) -> Iterator[tuple[str, str, str]]:
    """Fit on the patients of even number, score on the others."""
    fitted, scored = (np.flatnonzero(made.patient_N % 2 == half) for half in (0, 1))
    p_MFL, p_MSL = made.p_MNL[:, fitted], made.p_MNL[:, scored]
    y_SL, patient_S = made.y_NL[scored], made.patient_N[scored]
    losses, seconds = {}, {}
    for way, fit in {**OTHERS, CONVEX: ours("convex"), AUTO: ours("auto")}.items():
        start = time.process_time()
        predict = fit(p_MFL, made.y_NL[fitted], made.patient_N[fitted])
        seconds[way] = time.process_time() - start
        losses[way] = slice_losses(y_SL, predict(p_MSL))
        if way == AUTO:
            chosen = _chosen(predict)
    best = min(OTHERS, key=lambda way: losses[way].mean())
    against = np.stack([losses[AUTO] - losses[best], losses[AUTO] - losses["equal mean"]], axis=1)
    to_best, to_mean = differences_to_reference(against, np.zeros(len(against)), patient_S)
    is_no_worse = to_best.alone.low <= 0
    yield (
        f"held-out loss of auto minus that of the best other ({best}), {name}",
        f"**{to_best.alone.estimate:+.5f}** ({to_best.alone.low:+.5f} to {to_best.alone.high:+.5f}): "
        f"{'no worse' if is_no_worse else 'worse'}",
        f"auto chose {chosen}; losses: "
        + ", ".join(f"{way} {loss.mean():.5f} ({seconds[way]:.0f} CPU s)" for way, loss in losses.items())
        + f"; {len(fitted):,} slices fitted, {len(scored):,} of other patients scored, generated",
    )
    yield (
        f"held-out loss of auto minus that of the equal mean, {name}",
        f"{to_mean.alone.estimate:+.5f} ({to_mean.alone.low:+.5f} to {to_mean.alone.high:+.5f})",
        "95 % paired patient bootstrap, 2,000 draws",
    )


def real() -> Iterator[tuple[str, str, str]]:
    """Cross-fit auto on real predictions, every row a patient of its own, on several random splits."""
    if not ECG.is_file():
        yield "auto on real predictions of others", "not measured", "the files are not beside this checkout"
        return
    with np.load(ECG) as pack:
        y_NL = pack["y"].astype(np.float64)
        networks = pack["preds"].astype(np.float64)
        readers = np.stack([pack[key] for key in sorted(pack.files) if key.startswith("reader_")]).astype(np.float64)
    for name, p_MNL in (
        ("fourteen networks, one a copy", networks),
        ("networks and six readers who say 0 or 1", np.concatenate([networks, readers])),
    ):
        best = min(weighted_log_loss(y_NL, p_NL) for p_NL in p_MNL)
        losses = [weighted_log_loss(y_NL, crossfitted(p_MNL, y_NL, seed)) for seed in range(ECG_SPLITS)]
        yield (
            f"cross-fitted loss of auto minus that of the best single model, {name}",
            f"**{np.mean(losses) - best:+.5f}** (splits: {', '.join(f'{loss - best:+.5f}' for loss in losses)})",
            f"ensemble_ecg, 827 rows, {ECG_SPLITS} random splits into {ECG_FOLDS}; best single {best:.5f}",
        )


def crossfitted(p_MNL: np.ndarray, y_NL: np.ndarray, seed: int, name: str = AUTO) -> np.ndarray:
    """Return cross-fitted predictions of a random split of rows."""
    fold_N = np.random.default_rng(seed).permutation(len(y_NL)) % ECG_FOLDS
    row_N = np.arange(len(y_NL))

    def fit_predict(fit_rows: np.ndarray, predict_rows: np.ndarray) -> np.ndarray:
        return ours(name)(p_MNL[:, fit_rows], y_NL[fit_rows], row_N[fit_rows])(p_MNL[:, predict_rows])

    return crossfit(fit_predict, fold_N, y_NL.shape[1])


def _chosen(predict: Callable[[np.ndarray], np.ndarray]) -> str:
    blender = getattr(predict, "__self__", None)
    tried = blender.tried_ if isinstance(blender, Auto) else ()
    return next((f"`{each.title}`" for each in tried if each.chosen), "nothing")


if __name__ == "__main__":
    for row in measure():
        print(*row, sep="  ", flush=True)

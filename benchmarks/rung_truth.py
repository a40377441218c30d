"""How well each way of judging a rung ranks recipes, and what choosing by fold 0 flatters.

From the table of full curves. Rank correlations are Spearman's, between the score at a rung and the loss at the run's
own end, over all recipes that were judged so; the mean over the seeds is printed, with each seed's.
"""

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.rung_table import COOLDOWNS, JUDGED_AT, read_table

#: Of a run that diverged: worse than any.
WORST = 9.0
#: A search that keeps the best third at a rung should keep the best recipes: the best so many of a hundred.
BEST_PERCENT = 10
SHORT = "complete short schedule"
N_DRAWS, N_CHOSEN_FROM = 2000, (10, 30, 60)


def measure() -> Iterator[tuple[str, str, str]]:
    rows = read_table()
    for epoch in JUDGED_AT:
        for name, cost, score in judges(epoch):
            judged = [row for row in rows if "short" in row] if name == SHORT else rows
            seeds = sorted({row["seed"] for row in judged})
            found = [_truth([r for r in judged if r["seed"] == seed], score) for seed in seeds]
            rho, kept = (statistics.mean(values) for values in zip(*found, strict=True))
            each = ", ".join(f"{value:.2f}" for value, _ in found)
            yield (
                f"rung at epoch {epoch} of 9, {name}: rank correlation with the end",
                f"**{rho:.2f}** ({each}); keeps {kept:.0%} of the best tenth in its best third",
                f"{len(judged) // len(seeds)} recipes, seeds {seeds}, generated data; costs {cost:g} epochs",
            )
    yield from _optimism(rows)


def judges(epoch: int) -> list[tuple[str, float, Any]]:
    """Return each way of judging: its name, the epochs that a trial has cost then, and what it reads of a run."""
    at = str(epoch)
    return [
        ("validation loss as it is (plain ASHA)", epoch, lambda run: run["last"][epoch - 1]),
        ("weights averaged over the epoch", epoch, lambda run: run["average"][epoch - 1]),
        *(
            (f"cooldown of {length:g} epochs", epoch + length, lambda run, c=str(length): run["cooldown"][c][at])
            for length in COOLDOWNS
        ),
        (SHORT, epoch, lambda run: run["short"][at]),
    ]


def _truth(runs: list[dict[str, Any]], score: Any) -> tuple[float, float]:
    ends = np.array([WORST if run["last"][-1] is None else run["last"][-1] for run in runs])
    scores = np.array([WORST if score(run) is None else score(run) for run in runs])
    best = set(np.argsort(ends, kind="stable")[: max(1, len(ends) * BEST_PERCENT // 100)])
    kept = set(np.argsort(scores, kind="stable")[: len(ends) // 3])
    return float(spearmanr(scores, ends).statistic), len(best & kept) / len(best)


def _optimism(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield how much better the best of n trials looks on the fold it was chosen by than patients nobody chose by say.

    What the fold's loss should be is read from the test patients' loss, by a straight line through the logarithms of
    both over all recipes of a seed; the mean residual of the winners is the optimism.
    """
    rng = np.random.default_rng(7)
    for n in N_CHOSEN_FROM:
        found = []
        for seed in sorted({row["seed"] for row in rows}):
            runs = [row for row in rows if row["seed"] == seed and None not in (row["last"][-1], row["test"])]
            fold = np.log([run["last"][-1] for run in runs])
            test = np.log([run["test"] for run in runs])
            residual = fold - np.polyval(np.polyfit(test, fold, 1), test)
            drawn = np.array([rng.choice(len(runs), n, replace=False) for _ in range(N_DRAWS)])
            chosen = drawn[np.arange(N_DRAWS), fold[drawn].argmin(axis=1)]
            found.append(-float(residual[chosen].mean()))
        yield (
            f"optimism of fold 0's loss for the winner of {n} trials",
            f"**{statistics.mean(found):.1%}** ({', '.join(f'{one:+.1%}' for one in found)})",
            "the fold's loss below what the loss on unseen patients suggests; a seed each, generated data",
        )

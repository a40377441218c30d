"""What a sampler is told of trials that got unlike far: one number each, on the scale of finished trials.

Told as pruned, stopped trials only push a sampler away from where they were, and nothing is learnt from how they
compare with each other; told with their last loss as if they were complete, early losses compete with late ones. Here a
trial's loss at the highest rung that it reached is multiplied by the typical gain from there to the end. The order
within a rung is kept, trials of unlike length meet on one scale, and since every trial reaches the first rung, what the
sampler sees there was not selected by anything.

Source: the idea to compare at equal budgets is BOHB's (Falkner et al., ICML 2018), which models the largest budget with
enough observations and drops the rest; here the rest is brought to its scale. Why early values must not pass for final
ones: Li et al., MLSys 2020, section 3.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from ichtune.search.ledger import FAILED, FINISHED, TrialRecord


def comparable_losses(records: Sequence[TrialRecord]) -> dict[int, float]:
    """Return for each trial that was judged at least once what it would come to at its end.

    Finished trials are their own last loss, those that another search answered too. Those that failed and those that
    repeat a trial of this search are left out.

    Args:
        records: trials of one search.

    Returns:
        Losses in nats by trial number.
    """
    gains = _log_gains([r for r in records if r.status != FAILED and r.duplicate_of is None])
    found = {}
    for record in records:
        if record.status == FAILED or is_repeated(record):
            continue
        if record.status == FINISHED and record.last_loss is not None:
            found[record.trial] = record.last_loss
        elif losses := record.rung_losses:
            rung, loss = max(losses.items())
            found[record.trial] = loss * math.exp(sum(gain for r, gain in gains.items() if r >= rung))
    return found


def is_repeated(record: TrialRecord) -> bool:
    """Return whether a trial tells nothing that another one of its search does not tell."""
    return record.duplicate_of is not None and not record.from_search


def _log_gains(records: Sequence[TrialRecord]) -> dict[int, float]:
    """Return the median log ratio from each rung to the next one, or to the end after the last.

    A step that no trial has taken yet counts as no gain: all trials are then before it, and the order stays. A trial
    that went on to its end without being judged at the rungs on the way leapt over them, which tells of no single step.
    """
    judged = [(record, record.rung_losses) for record in records]  # read once: each record works them out anew
    rungs = sorted({rung for _, losses in judged for rung in losses})
    end = rungs[-1] + 1 if rungs else 0
    places = {rung: place for place, rung in enumerate([*rungs, end])}
    steps: dict[int, list[float]] = {rung: [] for rung in rungs}
    for record, losses in judged:
        passed = list(losses.items())
        if record.status == FINISHED and record.last_loss is not None:
            passed.append((end, record.last_loss))
        for (rung, loss), (next_rung, later) in pairwise(passed):
            is_leap = record.to_end and places[next_rung] > places[rung] + 1
            if loss > 0 and later > 0 and not is_leap:
                steps[rung].append(math.log(later / loss))
    return {rung: median(ratios) if ratios else 0.0 for rung, ratios in steps.items()}

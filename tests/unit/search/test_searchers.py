import math
from dataclasses import replace

import optuna
import pytest

from ichtune.errors import ConfigError
from ichtune.search.ledger import FAILED, FINISHED, INTERRUPTED, STOPPED, Ledger
from ichtune.search.searchers import LedgerSearcher, find_searcher, propose_trial, study_of


def test_the_study_is_told_the_truth_about_every_kind_of_end(record):
    records = [
        record(0, [0.3, 0.2], FINISHED),
        record(1, [0.4], STOPPED),
        record(2, [0.5], FAILED),
        record(3, [0.6], INTERRUPTED),
    ]

    trials = study_of(records).trials

    states = [trial.state.name for trial in trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert trials[0].value == 0.2
    assert trials[1].intermediate_values == {1: 0.4}
    assert trials[1].params == {"lr": 1e-3}


def test_what_is_not_a_number_never_reaches_the_sampler(record):
    (trial,) = study_of([record(0, [0.3, math.nan], FAILED)]).trials

    assert trial.intermediate_values == {1: 0.3}


def test_start_with_comes_first(space):
    first = propose_trial(space, [], 0)

    assert first.recipe.lr == pytest.approx(3e-3)
    assert first.parameters["windows"] == "subdural"


def test_the_same_past_gives_the_same_proposal_and_another_number_another(space):
    past = [_ended(propose_trial(space, [], 0))]

    one, same, other = (propose_trial(space, past, n) for n in (1, 1, 2))

    assert one.recipe == same.recipe
    assert one.optuna == same.optuna
    assert one.recipe != other.recipe


def test_tpe_learns_from_the_past(space):
    """After 30 trials in which only a learning rate near 1e-3 was good, proposals come closer to it than chance."""
    records = []
    for number in range(30):
        made = propose_trial(space, records, number)
        distance = abs(math.log10(made.recipe.lr) + 3.0)
        made.status, made.curve = FINISHED, [{"epoch": 1, "val_weighted_log_loss": distance, "seconds": 1.0}]
        records.append(made)

    random = replace(space, search=replace(space.search, algorithm="random"))

    assert _mean_distance(space, records) < 0.8 * _mean_distance(random, records)


def _mean_distance(space, records):
    rates = [propose_trial(space, records, number).recipe.lr for number in range(30, 60)]
    return sum(abs(math.log10(lr) + 3.0) for lr in rates) / len(rates)


def test_the_searcher_takes_up_interrupted_trials_before_it_proposes_new_ones(space, tmp_path, epoch):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.open({"space_id": space.space_id})
    for number in range(3):
        ledger.start(propose_trial(space, ledger.records(), number))
    ledger.epoch(0, epoch(1, 0.2))
    ledger.end(0, FINISHED)
    searcher = LedgerSearcher(space, ledger, 4, lambda r: {"trial": r.trial})

    numbers = [searcher.suggest(f"id{n}") for n in range(4)]

    assert numbers == [{"trial": 1}, {"trial": 2}, {"trial": 3}, "FINISHED"]
    assert [r.trial for r in ledger.records()] == [0, 1, 2, 3]


def test_a_proposal_is_in_the_ledger_before_it_is_handed_out(space, tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.open({})
    seen = []
    searcher = LedgerSearcher(space, ledger, 1, lambda r: seen.append(len(ledger.records())) or {"trial": r.trial})

    searcher.suggest("a")

    assert seen == [1]


def test_an_unknown_algorithm_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'tpe'"):
        find_searcher("tpee")


def test_optuna_is_silent():
    study_of([])
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


def _ended(made):
    made.status = FINISHED
    made.curve = [{"epoch": 1, "val_weighted_log_loss": 0.2, "seconds": 1.0}]
    return made

"""Proposals: the same past gives the same proposal, whatever the algorithm; samplers are told the truth."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from ichtune.errors import ConfigError
from ichtune.recipe import Recipe
from ichtune.search.ledger import DUPLICATE, FAILED, FINISHED, INTERRUPTED, STOPPED, Ledger
from ichtune.search.searchers import (
    N_ATTEMPTS,
    SEARCHERS,
    Question,
    find_searcher,
    n_startup_trials,
    propose_trial,
    study_of,
)
from ichtune.space import Space, propose, read_space, space_size

#: Those that learn nothing cost next to nothing, and every property is tried on them too.
ALGORITHMS = [name for name in SEARCHERS if name != "gp"]

CONDITIONAL = """
parameters:
  optimizer: [adamw, sgd, lion]
  momentum: {low: 0.8, high: 0.95, step: 0.05, when: {optimizer: sgd}}
  beta1: {choices: [0.9, 0.95], when: {optimizer: {ne: sgd}}}
  batch_size: {low: 16, high: 48, step: 16}
"""
CONSTRAINED = CONDITIONAL + "constraints:\n  - {batch_size: {le: 32}, when: {optimizer: sgd}}\n"


def space_of(tmp_path: Path, text: str, algorithm: str, seed: int = 7) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(f"version: 1\n{text}")
    space = read_space(path)
    return replace(space, search=replace(space.search, algorithm=algorithm, seed=seed))


def using(space: Space, algorithm: str) -> Space:
    return replace(space, search=replace(space.search, algorithm=algorithm))


def ended(made, loss=0.2):
    made.status = FINISHED
    made.curve = [{"epoch": 1, "val_weighted_log_loss": loss, "seconds": 1.0}]
    return made


def search(space: Space, n: int, loss=lambda recipe: 0.2, told=()) -> list:
    """Propose and end ``n`` trials, one after the other; proposals that are None end it."""
    records = []
    for number in range(n):
        made = propose_trial(space, records, number, told)
        if made is None:
            break
        records.append(ended(made, loss(made.recipe)))
    return records


def off_target(recipe: Recipe) -> float:
    return abs(math.log10(recipe.lr) + 3.0)


def test_the_study_is_told_the_truth_about_every_kind_of_end(record):
    records = [
        record(0, [0.3, 0.2], FINISHED, rungs={1: 0.25}),
        record(1, [0.4], STOPPED, rungs={1: 0.5}),
        record(2, [0.5], FAILED, rungs={1: 0.1}),
        record(3, [0.6], INTERRUPTED),
        record(4, [0.6], INTERRUPTED, rungs={1: 0.3}),
        record(5, [], DUPLICATE),
    ]
    records[5].duplicate_of = 0

    trials = study_of(records).trials

    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "FAIL", "RUNNING", "COMPLETE"]
    assert [trial.value for trial in trials] == pytest.approx([0.2, 0.4, None, None, 0.24])
    assert trials[1].params == {"lr": 1e-3}


def test_what_is_not_a_number_never_reaches_the_sampler(record):
    (trial,) = study_of([record(0, [0.3, math.nan], FAILED)]).trials

    assert trial.value is None
    assert trial.intermediate_values == {}


def test_trials_of_earlier_searches_are_told_first(record):
    told = study_of([record(0, [0.7])]).trials

    assert [trial.value for trial in study_of([record(0, [0.2])], told).trials] == [0.7, 0.2]


def test_a_loss_at_a_rung_that_is_no_number_never_reaches_the_sampler(record):
    (trial,) = study_of([record(0, [0.3], STOPPED, rungs={1: math.nan})]).trials

    assert (trial.state.name, trial.value) == ("RUNNING", None)


def test_what_studies_share_is_changed_by_none_of_them(record):
    """A study numbers the trials that it is told, and keeps no copies of what was proposed."""
    records = [record(number, [0.7 - number / 10]) for number in range(2)]
    told = study_of(records).trials
    before = [(trial.number, trial.state, trial.value, dict(trial.params)) for trial in told]
    proposals = [dict(one.optuna["params"]) for one in records]

    study = study_of(records, told)
    study.ask().suggest_float("lr", 1e-4, 1e-2, log=True)

    assert [trial.number for trial in study.trials] == [0, 1, 2, 3, 4]
    assert [(trial.number, trial.state, trial.value, trial.params) for trial in told] == before
    assert [one.optuna["params"] for one in records] == proposals


def test_what_another_search_answered_is_told_as_finished(record):
    answered = record(0, [0.3], FINISHED)
    answered.duplicate_of, answered.from_search = 3, "earlier"

    assert [trial.value for trial in study_of([answered]).trials] == [0.3]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_past_gives_the_same_proposal_and_another_number_another(tmp_path, algorithm):
    numbers = "" if algorithm == "grid" else "  lr: {low: 1e-4, high: 1e-2, log: true}\n"
    space = space_of(tmp_path, CONDITIONAL + numbers, algorithm)
    past = search(space, n_startup_trials(space) + 2, lambda recipe: recipe.batch_size / 100)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.open({})
    for one in past:
        ledger.start(one)
        ledger.epoch(one.trial, one.curve[0])
        ledger.end(one.trial, one.status)
    n = len(past)

    one, same, read, other = (
        propose_trial(space, records, number)
        for records, number in ((past, n), (list(past), n), (Ledger(ledger.path).records(), n), (past, n + 1))
    )

    assert one.optuna == same.optuna == read.optuna
    assert one.recipe == same.recipe == read.recipe
    assert one.recipe != other.recipe


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "gp"])
def test_start_with_comes_first_whatever_the_algorithm(space, algorithm):
    part = propose_trial(replace(using(space, algorithm), start_with=({"windows": "subdural"},)), [], 0)
    whole = propose_trial(using(space, algorithm), [], 0)

    assert part.parameters["windows"] == whole.parameters["windows"] == "subdural"
    assert 1e-4 <= part.recipe.lr <= 1e-2
    assert whole.recipe.lr == pytest.approx(3e-3)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_constraints_hold_in_every_proposal(tmp_path, algorithm):
    space = space_of(tmp_path, CONSTRAINED, algorithm)

    records = [propose_trial(space, [], number) for number in range(20)]

    assert all(r.recipe.batch_size <= 32 for r in records if r.recipe.optimizer == "sgd")
    assert any(r.recipe.batch_size == 48 for r in records)
    assert "sgd" in {r.recipe.optimizer for r in records}


def test_constraints_that_next_to_nothing_satisfies_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("ichtune.search.searchers.N_FEASIBLE_ATTEMPTS", 30)
    text = "parameters:\n  lr: {low: 0.0001, high: 1.0}\nconstraints:\n  - {lr: {le: 0.00010001}}\n"
    space = space_of(tmp_path, text, "random")

    with pytest.raises(ConfigError, match=r"30 draws broke a constraint.*lr must be at most 0.00010001"):
        propose_trial(space, [], 0)


def test_values_that_exclude_each_other_are_drawn_again(space, monkeypatch):
    def proposing(space, chooser):
        proposal = propose(space, chooser)
        if proposal.recipe.lr > 1e-3:
            raise ConfigError("they exclude each other")
        return proposal

    monkeypatch.setattr("ichtune.search.searchers.propose", proposing)

    assert all(r.recipe.lr <= 1e-3 for r in search(replace(using(space, "random"), start_with=()), 8))


@pytest.mark.parametrize("text", [CONDITIONAL, CONSTRAINED])
def test_a_grid_proposes_each_point_once_and_then_none(tmp_path, text):
    space = space_of(tmp_path, text, "grid")

    records = search(space, 100)

    assert len(records) == space_size(space).n == len({r.recipe.recipe_id for r in records})
    assert propose_trial(space, records, len(records)) is None


def test_a_grid_skips_many_forbidden_points_and_loses_none(tmp_path):
    """More in a row than a proposal is drawn again: points are found by number among those that are allowed."""
    text = "parameters:\n  neighbours: {low: 0, high: 5}\n  frozen_epochs: {low: 0, high: 5}\n  epochs: 9\n"
    text += "constraints:\n  - {neighbours: {ge: 4}}\n"
    space = space_of(tmp_path, text, "grid")

    records = search(space, 100)

    assert len(records) == 12
    assert all(r.duplicate_of is None for r in records)


def test_a_start_of_a_grid_is_answered_when_its_turn_comes(tmp_path):
    space = space_of(tmp_path, "parameters:\n  lr: [1e-3, 2e-3, 3e-3]\nstart_with:\n  - {lr: 2e-3}\n", "grid")

    records = search(space, 100)

    assert [r.recipe.lr for r in records] == [2e-3, 1e-3, 2e-3, 3e-3]
    assert [r.duplicate_of for r in records] == [None, None, 0, None]


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "grid"])
def test_what_was_tried_is_drawn_again_until_nothing_else_is_found(tmp_path, algorithm):
    space = space_of(tmp_path, "parameters:\n  lr: [1e-3, 2e-3]\n  windows: [brain, bone]\n", algorithm)

    records = search(space, 6)

    new = [r for r in records if r.duplicate_of is None]
    assert len(new) == 4
    assert all(records[r.duplicate_of].recipe == r.recipe for r in records if r.duplicate_of is not None)
    assert [r.duplicate_of is None for r in records] == [True] * 4 + [False] * 2
    assert N_ATTEMPTS > 4


def test_a_few_draws_that_were_tried_are_answered_even_where_most_others_are_forbidden(tmp_path, monkeypatch):
    monkeypatch.setattr("ichtune.search.searchers.N_FEASIBLE_ATTEMPTS", 60)
    text = "parameters:\n  neighbours: {low: 0, high: 7}\nconstraints:\n  - {neighbours: {ge: 7}}\n"
    space = space_of(tmp_path, text, "random")

    records = search(space, 2)

    assert [r.duplicate_of for r in records] == [None, 0]


def test_tpe_learns_from_the_past(space):
    """After 30 trials in which only a learning rate near 1e-3 was good, proposals come closer to it than chance."""
    records = search(space, 30, off_target)

    assert _mean_distance(space, records) < 0.8 * _mean_distance(using(space, "random"), records)


def test_tpe_learns_from_trials_that_were_stopped(space):
    """Those that finished lie on the wrong side; only what is told of the stopped ones leads to the right one."""
    records = search(using(space, "random"), 30, off_target)
    for one in records:
        one.status = STOPPED
        one.curve[0] |= {"rung": 1, "rung_loss": off_target(one.recipe) + 1.0}

    assert _mean_distance(space, records) < 0.8 * _mean_distance(using(space, "random"), records)


def test_tpe_learns_from_an_earlier_search(space):
    earlier = study_of(search(using(space, "random"), 30, off_target)).trials

    informed = [off_target(propose_trial(space, [], number, earlier).recipe) for number in range(1, 25)]
    blind = [off_target(propose_trial(space, [], number).recipe) for number in range(1, 25)]

    assert sum(informed) < 0.8 * sum(blind)


def _mean_distance(space, records):
    rates = [propose_trial(space, records, number).recipe for number in range(30, 54)]
    return sum(map(off_target, rates)) / len(rates)


def test_the_gaussian_process_works_on_a_space_with_conditions(tmp_path):
    space = space_of(tmp_path, CONDITIONAL + "  lr: {low: 1e-4, high: 1e-2, log: true}\n", "gp")
    records = search(using(space, "random"), n_startup_trials(space) + 1, lambda recipe: recipe.batch_size / 100)

    made = propose_trial(space, records, len(records))

    assert made.recipe.recipe_id not in {r.recipe.recipe_id for r in records}
    assert made.recipe.batch_size == 16  # the best so far, and the model knows it
    assert propose_trial(space, records, len(records)).optuna == made.optuna


def test_quasi_random_takes_every_choice_equally_often(tmp_path):
    records = search(space_of(tmp_path, CONDITIONAL, "quasi_random"), 18)

    assert set(Counter(r.recipe.optimizer for r in records).values()) <= {5, 6, 7}


def test_each_draw_has_a_seed_of_its_own(space):
    seeds = {Question(space, [], number, attempt).seed for number in range(20) for attempt in range(20)}

    assert len(seeds) == 400


def test_as_many_trials_are_drawn_blindly_as_parameters_are_searched_and_four_at_least(space):
    assert n_startup_trials(space) == max(4, len(space.searched))
    assert n_startup_trials(replace(space, parameters=space.parameters[:1])) == 4
    assert n_startup_trials(replace(space, parameters=3 * space.searched)) == 3 * len(space.searched) > 4


def test_an_unknown_algorithm_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'tpe'"):
        find_searcher("tpee")


def test_optuna_is_silent():
    study_of([])
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR

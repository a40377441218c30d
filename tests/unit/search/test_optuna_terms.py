"""The ledger's terms and a sampler's."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from ichtune.search.optuna_terms import OptunaChooser, SampledChooser, frozen, in_order, sampled, start_of
from ichtune.space import read_space

RATES = ("0.01", "3e-4", "0.002")


def test_the_chooser_answers_from_the_trial():
    chooser = OptunaChooser(optuna.trial.FixedTrial({"a": "x", "b": 0.5, "c": 4}))

    assert chooser.categorical("a", ("x", "y")) == "x"
    assert chooser.real("b", 0.0, 1.0, log=False, step=None) == 0.5
    assert chooser.integer("c", 0, 8, log=False, step=2) == 4


@pytest.mark.parametrize(
    ("choices", "order"),
    [
        (RATES, ["3e-4", "0.002", "0.01"]),
        (("64", "128"), None),  # of two, the order tells nothing
        (("resnet18", "resnet34", "50"), None),
        (("1", "2", "inf"), None),
        ((True, None, "1"), None),
    ],
)
def test_only_three_and_more_numbers_have_an_order(choices, order):
    assert in_order(choices) == order


def test_a_sampler_is_asked_for_a_place_and_the_ledger_told_the_label():
    study = optuna.create_study()
    study.enqueue_trial({"lr": 2, "windows": "brain"})
    trial = study.ask()
    chooser = SampledChooser(trial)

    assert chooser.categorical("lr", RATES) == "0.01"
    assert chooser.categorical("windows", ("bone", "brain")) == "brain"
    assert trial.distributions["lr"] == IntDistribution(0, 2)
    told = chooser.told()
    assert told["params"] == {"lr": "0.01", "windows": "brain"}
    assert optuna.distributions.json_to_distribution(told["distributions"]["lr"]) == CategoricalDistribution(RATES)


def test_what_the_ledger_keeps_is_told_back_as_the_place(record):
    study = optuna.create_study()
    chooser = SampledChooser(study.ask())
    label = chooser.categorical("lr", RATES)
    of_ledger = record(0, [0.3])
    of_ledger.optuna = chooser.told()

    trial = frozen(of_ledger, 0.3)

    assert trial.params == {"lr": in_order(RATES).index(label)} == study.trials[0].params
    assert trial.distributions == study.trials[0].distributions
    assert of_ledger.optuna["params"] == {"lr": label}


def test_trials_of_earlier_searches_are_told_alike():
    earlier = optuna.trial.create_trial(
        value=0.2, params={"lr": "0.002"}, distributions={"lr": CategoricalDistribution(RATES)}
    )

    told = sampled(earlier)

    assert (told.value, told.params, told.distributions) == (0.2, {"lr": 1}, {"lr": IntDistribution(0, 2)})


def test_given_values_start_a_trial_at_their_place(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "parameters:\n  lr: [0.01, 3e-4, 0.002]\n  windows: [brain, bone]\n  momentum: {low: 0.5, high: 0.9}\n"
    )
    space = read_space(path)
    labels = space.parameter("lr").domain.labels

    started = start_of(space, {"lr": labels[0], "windows": "bone", "momentum": 0.7})

    assert started == {"lr": 2, "windows": "bone", "momentum": 0.7}

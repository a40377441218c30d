"""What a search writes down in Optuna's terms, and what a sampler is told: choices of numbers keep their order there.

The ledger calls a choice by its label. A sampler that is told labels learns of each by itself; told the places of
numbers in their order (image sides, neighbours, learning rates), it learns of those beside them too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from ichtune.search.ledger import FAILED, TrialRecord
from ichtune.space import Space
from ichtune.space.domains import Choice

#: Numbers of a choice that have an order worth telling.
MIN_ORDERED = 3


class OptunaChooser:
    """Answers a search space's questions from an Optuna trial, in the ledger's terms."""

    def __init__(self, trial: optuna.trial.BaseTrial) -> None:
        self._trial = trial

    def categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Choose one of ``choices``."""
        return self._trial.suggest_categorical(name, list(choices))

    def real(self, name: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        """Choose a number."""
        return self._trial.suggest_float(name, low, high, log=log, step=step)

    def integer(self, name: str, low: int, high: int, *, log: bool, step: int) -> int:
        """Choose a whole number."""
        return self._trial.suggest_int(name, low, high, log=log, step=step)

    def told(self) -> dict[str, Any]:
        """Return what was chosen as the ledger keeps it: ``params``, and ``distributions`` as JSON."""
        written = {name: distribution_to_json(d) for name, d in self._trial.distributions.items()}
        return {"params": dict(self._trial.params), "distributions": written}


class SampledChooser(OptunaChooser):
    """Answers from a trial that a sampler draws: it is asked for a place in the order where choices have one."""

    def __init__(self, trial: optuna.trial.BaseTrial) -> None:
        super().__init__(trial)
        self._orders: dict[str, tuple[list[Any], list[Any]]] = {}

    def categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Choose one of ``choices``."""
        order = in_order(choices)
        if order is None:
            return super().categorical(name, choices)
        self._orders[name] = list(choices), order
        return order[self._trial.suggest_int(name, 0, len(order) - 1)]

    def told(self) -> dict[str, Any]:
        """Return what was chosen as the ledger keeps it, choices by their labels."""
        told = super().told()
        for name, (choices, order) in self._orders.items():
            told["params"][name] = order[told["params"][name]]
            told["distributions"][name] = distribution_to_json(CategoricalDistribution(choices))
        return told


def in_order(choices: Sequence[Any]) -> list[Any] | None:
    """Return the labels of a choice from the lowest number to the highest; None where they are no numbers, or two."""
    try:
        numbers = [float(label) for label in choices]
    except (TypeError, ValueError):
        return None
    if len(numbers) < MIN_ORDERED or not all(map(math.isfinite, numbers)):
        return None
    return [choices[place] for place in sorted(range(len(numbers)), key=numbers.__getitem__)]


def start_of(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return given values, by flat name as ``fixed_values`` has them, as a sampler's trial is started with them."""
    labels = {p.key: p.domain.labels for p in space.parameters if isinstance(p.domain, Choice)}
    orders = {name: in_order(labels[name]) for name in values if name in labels}
    return {
        name: value if (order := orders.get(name)) is None else order.index(value) for name, value in values.items()
    }


def sampled(trial: FrozenTrial) -> FrozenTrial:
    """Return a complete trial in the ledger's terms as a sampler is told it."""
    params, distributions = _ordered(trial.params, trial.distributions)
    return create_trial(state=trial.state, value=trial.value, params=params, distributions=distributions)


def frozen(record: TrialRecord, loss: float | None) -> FrozenTrial:
    """Return a trial of the ledger as a sampler is told it.

    Args:
        record: the trial.
        loss: what it is judged by, in nats; None while there is none.
    """
    unlike = TrialState.FAIL if record.status == FAILED else TrialState.RUNNING
    state = unlike if loss is None or math.isnan(loss) else TrialState.COMPLETE
    value = loss if state is TrialState.COMPLETE else None
    params, distributions = _ordered(record.optuna["params"], _read(record.optuna["distributions"]))
    return create_trial(state=state, value=value, params=params, distributions=distributions)


def _ordered(
    params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    params, distributions = dict(params), dict(distributions)
    for name, distribution in distributions.items():
        order = in_order(distribution.choices) if isinstance(distribution, CategoricalDistribution) else None
        if order is not None:
            params[name] = order.index(params[name])
            distributions[name] = IntDistribution(0, len(order) - 1)
    return params, distributions


_READ: dict[str, BaseDistribution] = {}


def _read(written: Mapping[str, str]) -> dict[str, BaseDistribution]:
    """Read distributions from JSON; a search writes the same few thousands of times."""
    for text in written.values():
        if text not in _READ:
            _READ[text] = json_to_distribution(text)
    return {name: _READ[text] for name, text in written.items()}

"""What a search takes from earlier ones in the same workspace: their trials as knowledge, and as answers.

Only searches that were judged on the same slices by the same labels count: of the same fold plan, cache, labels and
folds. Losses of others are not comparable, and a fold of another plan may hold the patients that are scored here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from ichtune.errors import ConfigError, ConflictError, DataError
from ichtune.layout import Layout
from ichtune.search.comparable import comparable_losses
from ichtune.search.identity import not_comparable
from ichtune.search.ledger import FINISHED, Ledger, TrialRecord
from ichtune.search.optuna_terms import OptunaChooser
from ichtune.search.trial_table import ledger_path, readable_ledgers, search_names
from ichtune.space import Space, fixed_values, propose
from ichtune.space.conditions import is_active
from ichtune.space.levels import told_values
from ichtune.space.proposals import plain_value


def told_by(layout: Layout, space: Space, identity: Mapping[str, Any]) -> list[FrozenTrial]:
    """Return the trials of the searches that a space learns from, in the space's own terms.

    A trial whose searched values lie outside the space is left out. What it had fixed otherwise does not matter: values
    are knowledge, not results, and the sampler's model is soon corrected by this search's own trials.

    Args:
        layout: of the workspace.
        space: names the searches as ``search: {learn_from: [...]}``.
        identity: of this search.

    Raises:
        ConfigError: nothing of a named search lies in the space.
        ConflictError: a named search was judged on other slices, or by other labels.
        DataError: there is no such search.
    """
    told: list[FrozenTrial] = []
    for name in space.search.learn_from:
        path = ledger_path(layout, name)
        if not path.is_file():
            others = ", ".join(search_names(layout)) or "none"
            raise DataError(f"learn_from: no search {name!r} in {layout.searches}; there is {others}")
        ledger = Ledger(path)
        if differing := not_comparable(ledger.about(), identity):
            raise ConflictError(
                f"learn_from: search {name!r} was judged with another {' and '.join(differing)}; its losses cannot be "
                f"compared with this search's. Leave it out"
            )
        found = translated(space, ledger.records())
        if not found:
            raise ConfigError(f"learn_from: no trial of search {name!r} lies in space {space.name!r}; leave it out")
        told += found
    return told


def translated(space: Space, records: Sequence[TrialRecord]) -> list[FrozenTrial]:
    """Return the trials that lie in a space, as complete Optuna trials with comparable losses."""
    losses = comparable_losses(records)
    found = []
    for record in records:
        if record.trial in losses:
            trial = _in_terms_of(space, record)
            if trial is not None:
                found.append(
                    create_trial(
                        state=TrialState.COMPLETE,
                        value=losses[record.trial],
                        params=trial.params,
                        distributions=trial.distributions,
                    )
                )
    return found


def _in_terms_of(space: Space, record: TrialRecord) -> FixedTrial | None:
    recipe = told_values(record.recipe)
    values: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    try:
        for parameter in space.ordered:
            if is_active(parameter.when, plain):
                told = recipe.get(parameter.key)
                values |= {} if parameter.is_fixed else fixed_values(space, {parameter.key: told})
                plain[parameter.key] = plain_value(parameter, told)
        trial = FixedTrial(values)
        proposal = propose(space, OptunaChooser(trial))
    except ConfigError:  # outside a domain
        return None
    return None if proposal.violated else trial


def answers_of(layout: Layout, search: str, identity: Mapping[str, Any]) -> dict[str, tuple[str, TrialRecord]]:
    """Return the finished trials of other comparable searches by recipe_id, with the search's name."""
    answers: dict[str, tuple[str, TrialRecord]] = {}
    for name, ledger in readable_ledgers(layout).items():
        if name == search or not ledger.records() or not_comparable(ledger.about(), identity):
            continue
        for record in ledger.records():
            if record.status == FINISHED and record.duplicate_of is None:
                answers.setdefault(record.recipe.recipe_id, (name, record))
    return answers

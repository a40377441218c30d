"""What a search is: what must not change between two runs of it, and when its losses compare with another's."""

from collections.abc import Mapping
from typing import Any

from ichtune.errors import ConfigError
from ichtune.search.ledger import Ledger
from ichtune.search.levels import FIRST_LEVEL, search_level
from ichtune.space import Space
from ichtune.training.run_folder import inputs_of
from ichtune.workspace import Workspace

#: The one part of a search's identity that may differ where its losses are to be comparable.
_ITS_OWN = "space_id"
#: Parts of the identity that searches of one level have, and others have not.
_OF_SOME = (FIRST_LEVEL,)


def identity_of(workspace: Workspace, space: Space) -> dict[str, Any]:
    """Return what must not change between two runs of one search: its space, its folds and what they are made from."""
    own = search_level(space.level).identity(workspace, space)
    return {_ITS_OWN: space.space_id, **inputs_of(workspace), "folds": list(space.folds.search_on), **own}


def not_comparable(about: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """Return why losses of another search are not comparable: what differs, or was not noted by an earlier ichtune.

    Args:
        about: what the other search was started with.
        identity: of this search.
    """
    differing = [k for k, value in identity.items() if k != _ITS_OWN and (k not in about or about[k] != value)]
    return [*differing, *(k for k in _OF_SOME if k in about and k not in identity)]


def check_noted(ledger: Ledger, identity: Mapping[str, Any]) -> None:
    """Refuse a search of which an earlier ichtune did not note all that must not change, or whose runs have changed.

    Raises:
        ConfigError: whether its losses are of this data cannot be known, or it learnt from other runs.
    """
    if not (ledger.path.is_file() and ledger.records()):
        return
    started = ledger.about()
    _check_members(ledger.path.parent.name, started.get(FIRST_LEVEL), identity.get(FIRST_LEVEL))
    missing = [key for key in identity if key not in started and key not in _OF_SOME]
    if missing:
        raise ConfigError(
            f"search {ledger.path.parent.name!r} was started by an earlier ichtune, which did not note its "
            f"{' and '.join(missing)}: whether its losses are of the data that are here now cannot be known, so it is "
            f"not continued. Give this one a name of its own with --name"
        )


def _check_members(name: str, then: Mapping[str, str] | None, now: Mapping[str, str] | None) -> None:
    """Say which runs a search of the second level would learn from otherwise than it did."""
    if not then or not now or then == now:
        return
    again = {recipe_id for recipe_id in then.keys() & now.keys() if then[recipe_id] != now[recipe_id]}
    kinds = (("not learnt from then", now.keys() - then.keys()), ("left out now", then.keys() - now.keys()))
    told = [f"{what} {', '.join(sorted(ids))}" for what, ids in (*kinds, ("trained again", again)) if ids]
    rest = "" if again else f", or name its runs in the space to continue it: `members: {sorted(then)}`"
    raise ConfigError(
        f"search {name!r} was started on other runs of the first level ({'; '.join(told)}), so that its losses are of "
        f"another search. Give this one a name of its own with --name{rest}"
    )

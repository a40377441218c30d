"""What a search is: what must not change between two runs of it, and when its losses compare with another's."""

from collections.abc import Mapping
from typing import Any

from ichtune.errors import ConfigError
from ichtune.search.ledger import Ledger
from ichtune.space import Space
from ichtune.training.fold_run import inputs_of
from ichtune.workspace import Workspace

#: The one part of a search's identity that may differ where its losses are to be comparable.
_ITS_OWN = "space_id"


def identity_of(workspace: Workspace, space: Space) -> dict[str, Any]:
    """Return what must not change between two runs of one search: its space, its folds and what they are made from."""
    return {_ITS_OWN: space.space_id, **inputs_of(workspace), "folds": list(space.folds.search_on)}


def not_comparable(about: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """Return why losses of another search are not comparable: what differs, or was not noted by an earlier ichtune.

    Args:
        about: what the other search was started with.
        identity: of this search.
    """
    return [k for k, value in identity.items() if k != _ITS_OWN and (k not in about or about[k] != value)]


def check_noted(ledger: Ledger, identity: Mapping[str, Any]) -> None:
    """Refuse a search of which an earlier ichtune did not note all that must not change.

    Raises:
        ConfigError: whether its losses are of this data cannot be known.
    """
    if not (ledger.path.is_file() and ledger.records()):
        return
    started = ledger.about()
    missing = [key for key in identity if key not in started]
    if missing:
        raise ConfigError(
            f"search {ledger.path.parent.name!r} was started by an earlier ichtune, which did not note its "
            f"{' and '.join(missing)}: whether its losses are of the data that are here now cannot be known, so it is "
            f"not continued. Give this one a name of its own with --name"
        )

"""Running: how many trials of a search run at a time, as its events tell."""

from typing import TYPE_CHECKING

from ichtune.search.watchers import START, Watcher, is_end

if TYPE_CHECKING:
    from ichtune.search.cluster import Cluster
    from ichtune.search.ledger import TrialRecord
    from ichtune.search.telemetry import TrialEvent


class Running(Watcher):
    """Counts the trials that run, wherever that is: what they fit on is not this machine, and it may grow."""

    def __init__(self) -> None:
        self._trials: set[int] = set()

    @property
    def n(self) -> int:
        """Trials that run now, at least one."""
        return max(1, len(self._trials))

    def started(self, name: str, cluster: "Cluster", records: "list[TrialRecord]") -> None:
        """Begin to count."""
        self._trials.clear()

    def event(self, event: "TrialEvent") -> None:
        """Count a trial that begins a leg, and one that ends it."""
        if event.kind == START:
            self._trials.add(event.trial)
        elif is_end(event):
            self._trials.discard(event.trial)

    def ended(self) -> None:
        """Nothing runs any more."""
        self._trials.clear()

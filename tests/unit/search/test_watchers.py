import pytest

from ichtune.search.cluster import Cluster
from ichtune.search.gauges import Gauges
from ichtune.search.telemetry import TrialEvent
from ichtune.search.tensorboard import TensorBoardLog
from ichtune.search.watchers import Watcher, Watchers, create_watchers, is_end

CLUSTER = Cluster("", "", 2, 0, joined=False)


class Recorder(Watcher):
    """Keeps what it is told; raises where it is told to."""

    def __init__(self, raises_at: str = "") -> None:
        self.told: list[str] = []
        self.raises_at = raises_at

    def started(self, name, cluster, records):
        self._take("started")

    def event(self, event):
        self._take(event.kind)

    def ended(self):
        self._take("ended")

    def _take(self, what):
        self.told.append(what)
        if what == self.raises_at:
            raise OSError("disk full\nand more")


def run(watchers, kinds=("start", "epoch", "epoch", "finished")):
    watchers.started("s", CLUSTER, [])
    for kind in kinds:
        watchers.event(TrialEvent(kind, 0, "net", 1, 2, 0.3))
    watchers.ended()


def test_everybody_is_told_everything_in_order():
    members = [Recorder(), Recorder()]

    run(Watchers(members, pytest.fail))

    assert [member.told for member in members] == 2 * [["started", "start", "epoch", "epoch", "finished", "ended"]]


@pytest.mark.parametrize(("at", "told"), [("started", 1), ("epoch", 3), ("ended", 6)])
def test_one_that_raises_is_noted_once_and_dropped_and_the_others_go_on(at, told):
    bad, good, notes = Recorder(at), Recorder(), []

    run(Watchers([bad, good], notes.append))

    assert len(bad.told) == told
    assert len(good.told) == 6
    (note,) = notes
    assert "Recorder" in note
    assert "OSError: disk full" in note
    assert "and more" not in note


def test_ctrl_c_is_not_caught():
    class Interrupted(Recorder):
        def event(self, event):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Watchers([Interrupted()], pytest.fail).event(TrialEvent("epoch", 0, "net", 1, 2, 0.3))


def test_starts_and_epochs_are_no_ends():
    kinds = ["start", "epoch", "finished", "stopped", "failed", "duplicate"]

    assert [is_end(TrialEvent(kind, 0, "net", 1, 2, 0.3)) for kind in kinds] == [False] * 2 + [True] * 4


def test_the_command_s_own_watchers_are_told_first_and_tensorboard_can_be_left_out(tmp_path):
    shown = Recorder()

    def kinds(**options):
        return [type(member) for member in create_watchers(tmp_path, [shown], pytest.fail, **options)._members]

    assert kinds() == [Recorder, Gauges, TensorBoardLog]
    assert kinds(tensorboard=False) == [Recorder, Gauges]

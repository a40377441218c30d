import itertools
import json
import math
import re
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from ichtune.search import gauges
from ichtune.search.cluster import Cluster
from ichtune.search.gauges import GAUGES, LINGER_S, RAY_PREFIX, STATES, Gauges, GaugeValues, targets_path
from ichtune.search.ledger import FINISHED, INTERRUPTED
from ichtune.search.telemetry import TrialEvent

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana-dashboard.json"
NET, OTHER = ("s", "0", "net"), ("s", "1", "other")


def epoch(trial=0, number=1, loss=0.3, **figures):
    summary = "other" if trial else "net"
    return TrialEvent("epoch", trial, summary, number, 3, loss, images_per_second=50.0, **figures)


def test_a_search_that_begins_has_spent_nothing_and_has_no_best():
    current = GaugeValues("s", []).current(0)

    assert current["ichtune_epochs_spent", ("s",)] == 0
    assert ("ichtune_best_loss", ("s",)) not in current
    assert current["ichtune_trials", ("s", "running")] == 0


def test_tags_are_in_letters_that_rays_metrics_know():
    values = GaugeValues("s", [])
    values.take(TrialEvent("epoch", 0, "net|brain|±1|64px", 1, 3, 0.3), 0.0)

    assert values.current(0)["ichtune_trial_loss", ("s", "0", "net|brain|+-1|64px")] == 0.3
    assert all(tag.isascii() for _, tags in values.current(0) for tag in tags)


def test_a_continued_search_counts_what_was_there_before(record):
    records = [record(0, [0.3, 0.2], FINISHED), record(1, [0.4], INTERRUPTED)]

    current = GaugeValues("s", records).current(0)

    assert current["ichtune_best_loss", ("s",)] == 0.2
    assert current["ichtune_epochs_spent", ("s",)] == 3
    assert current["ichtune_trials", ("s", FINISHED)] == 1
    assert current["ichtune_trials", ("s", INTERRUPTED)] == 1
    assert not [key for key in current if key[0].startswith("ichtune_trial_")]


def test_an_epoch_is_seen_trial_by_trial_and_in_the_totals():
    values = GaugeValues("s", [])
    values.take(epoch(0, 1, 0.3, rung_loss=0.25, cost=1.5, gpu_memory_mb=2.0), 0)
    values.take(epoch(1, 2, 0.4), 0)

    current = values.current(0)

    assert current["ichtune_trial_loss", NET] == 0.3
    assert current["ichtune_trial_loss", OTHER] == 0.4
    assert current["ichtune_trial_epoch", OTHER] == 2
    assert current["ichtune_trial_rung_loss", NET] == 0.25
    assert ("ichtune_trial_rung_loss", OTHER) not in current
    assert current["ichtune_trial_images_per_second", NET] == 50
    assert current["ichtune_trial_gpu_memory_bytes", NET] == 2 * 1024**2
    assert current["ichtune_best_loss", ("s",)] == 0.3
    assert current["ichtune_epochs_spent", ("s",)] == 2.5
    assert current["ichtune_trials", ("s", "running")] == 2


def test_a_trial_that_ended_stays_visible_for_a_while_and_its_state_for_good():
    values = GaugeValues("s", [])
    values.take(epoch(0, 1, 0.3), 0)
    values.take(TrialEvent("stopped", 0, "net", 1, 3, 0.3), 10)

    assert values.current(10 + LINGER_S)["ichtune_trial_loss", NET] == 0.3
    later = values.current(10 + LINGER_S + 1)
    assert not [key for key in later if key[1] == NET]
    assert later["ichtune_trials", ("s", "stopped")] == 1
    assert later["ichtune_trials", ("s", "running")] == 0
    assert later["ichtune_best_loss", ("s",)] == 0.3


def test_a_stopped_trial_that_is_promoted_is_seen_again():
    values = GaugeValues("s", [])
    values.take(epoch(0, 1, 0.3), 0)
    values.take(TrialEvent("stopped", 0, "net", 1, 3, 0.3), 10)
    values.take(TrialEvent("start", 0, "net", 0, 3, None), 20)
    assert values.current(1000)["ichtune_trial_epoch", NET] == 1
    values.take(epoch(0, 2, 0.2), 1000)

    current = values.current(2000)

    assert current["ichtune_trial_loss", NET] == 0.2
    assert current["ichtune_trial_epoch", NET] == 2
    assert current["ichtune_trials", ("s", "running")] == 1
    assert current["ichtune_trials", ("s", "stopped")] == 0


def test_a_loss_that_is_no_number_is_no_value():
    values = GaugeValues("s", [])
    values.take(epoch(0, 1, math.nan), 0)
    values.take(TrialEvent("failed", 0, "net", 0, 3, None, "diverged"), 0)

    current = values.current(0)

    assert ("ichtune_trial_loss", NET) not in current
    assert ("ichtune_best_loss", ("s",)) not in current
    assert current["ichtune_trials", ("s", "failed")] == 1


def test_every_value_has_the_tags_that_its_gauge_declares(record):
    values = GaugeValues("s", [record(0, [0.3])])
    values.take(epoch(1, 1, 0.3, rung_loss=0.25, gpu_memory_mb=2.0), 0)

    current = values.current(0)

    assert {name for name, _ in current} == set(GAUGES)
    assert all(len(tags) == len(GAUGES[name][1]) for name, tags in current)


class FakeGauge:
    """Stands for Ray's gauge; keeps what it is set to, and raises where Ray is gone."""

    made: ClassVar[dict[str, "FakeGauge"]] = {}
    raises = False

    def __init__(self, name, about, tag_keys):
        self.tag_keys, self.values, self.n_sets = tag_keys, {}, 0
        FakeGauge.made[name] = self

    def set(self, value, tags):
        if FakeGauge.raises:
            raise RuntimeError("Ray is gone")
        assert set(tags) == set(self.tag_keys)
        self.values[tuple(tags.values())] = value
        self.n_sets += 1


@pytest.fixture
def started(tmp_path, monkeypatch):
    monkeypatch.setattr("ray.util.metrics.Gauge", FakeGauge)
    monkeypatch.setattr(gauges, "REFRESH_S", 0.01)
    monkeypatch.setattr(gauges, "driver_metrics_address", lambda: "127.0.0.1:4711")
    monkeypatch.setattr(FakeGauge, "raises", False)
    watcher = Gauges(tmp_path / "searches" / "s")
    watcher.started("s", Cluster("", "", 2, 0, joined=False), [])
    yield watcher
    watcher.ended()


def wait_until(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_values_are_set_again_and_again_though_nothing_happens(started):
    started.event(epoch(0, 1, 0.3))
    gauge = FakeGauge.made["ichtune_trial_loss"]

    wait_until(lambda: gauge.n_sets > 3)

    assert gauge.values == {NET: 0.3}
    started.ended()
    n_sets = gauge.n_sets
    time.sleep(0.05)
    assert gauge.n_sets == n_sets


def test_prometheus_is_told_where_to_scrape_as_long_as_the_search_runs(started, tmp_path):
    path = targets_path(tmp_path / "searches" / "s")

    assert json.loads(path.read_text()) == [{"targets": ["127.0.0.1:4711"], "labels": {"job": "ichtune"}}]
    started.ended()
    assert list(path.parent.iterdir()) == []


def test_nothing_is_raised_where_ray_is_gone(started, monkeypatch, caplog):
    monkeypatch.setattr(FakeGauge, "raises", True)

    wait_until(lambda: "ichtune-gauges" not in {thread.name for thread in threading.enumerate()})
    started.event(epoch(0, 1, 0.3))
    started.ended()

    assert "Ray is gone" in caplog.text


def test_a_watcher_that_was_never_started_ends_quietly(tmp_path):
    watcher = Gauges(tmp_path / "searches" / "s")

    watcher.event(epoch())
    watcher.ended()


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(DASHBOARD.read_text())


def expressions(dashboard):
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_every_series_and_for_no_other(dashboard):
    asked = {name for expr in expressions(dashboard) for name in re.findall(r"\b[a-z]+_\w+", expr)}

    assert asked == {RAY_PREFIX + name for name in GAUGES}


def test_the_dashboard_uses_only_tags_and_states_that_there_are(dashboard):
    for expr in expressions(dashboard):
        (name,) = re.findall(r"ray_(\w+)\{", expr)
        used = re.findall(r"(\w+)=~?\"", expr) + re.findall(r"\w+", re.findall(r"by \((.*?)\)", expr)[0])
        assert set(used) <= set(GAUGES[name][1])
        for states in re.findall(r"state=~?\"(.*?)\"", expr):
            assert set(states.split("|")) <= set(STATES)


def test_the_dashboard_is_one_that_grafana_imports(dashboard):
    panels = dashboard["panels"]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}

    assert dashboard["schemaVersion"] >= 36
    assert dashboard["title"]
    assert re.fullmatch(r"[\w-]{1,40}", dashboard["uid"])
    assert len({panel["id"] for panel in panels}) == len(panels) > 5
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["search"]["definition"] == "label_values(ray_ichtune_trials, search)"
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"]
        assert panel["description"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for place in (panel, *panel["targets"]):
            assert place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all("$search" in target["expr"] for target in panel["targets"])


def test_no_panel_of_the_dashboard_lies_over_another(dashboard):
    squares = [
        set(itertools.product(range(p["x"], p["x"] + p["w"]), range(p["y"], p["y"] + p["h"])))
        for p in (panel["gridPos"] for panel in dashboard["panels"])
    ]

    assert sum(map(len, squares)) == len(set().union(*squares))
    assert all(0 <= x < 24 for square in squares for x, _ in square)

"""Clusters that grow: how they are known, how many trials are asked for, and what is said while they start nodes."""

import json
import pickle
from types import SimpleNamespace

import pytest

from ichtune.search import growth
from ichtune.search.growth import GROWS_NO_MORE_S, LOOK_S, N_AHEAD, SAY_AGAIN_S, SLOW_S, Room, Waiting, can_grow


@pytest.fixture
def reports(monkeypatch):
    """What the two versions of Ray's autoscaler report, one after the other; the last goes on."""

    def use(*told, version="0", kinds=()):
        left = list(told)
        status = SimpleNamespace(
            stats=SimpleNamespace(autoscaler_version=version),
            active_nodes=[SimpleNamespace(ray_node_type_name=kind) for kind in kinds],
            idle_nodes=[],
        )
        monkeypatch.setattr(
            "ray.experimental.internal_kv._internal_kv_get", lambda key: left.pop(0) if len(left) > 1 else left[0]
        )
        monkeypatch.setattr("ray.autoscaler.v2.sdk.get_cluster_status", lambda address: status)
        monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="127.0.0.1:1"))
        monkeypatch.setattr(growth.time, "sleep", lambda seconds: None)

    return use


def report(*kinds: str) -> bytes:
    return json.dumps({"autoscaler_report": {"active_nodes": dict.fromkeys(kinds, 1)}}).encode()


#: What is reported of a node that no heartbeat has come from yet.
BEGUN = json.dumps({"autoscaler_report": {"active_nodes": {}, "node_type_mapping": {"10.0.0.1": "head"}}}).encode()


@pytest.mark.parametrize(
    ("told", "grows"),
    [
        ([report("head", "gpu")], True),
        ([report("ray.head.default")], True),  # nothing but the head yet
        ([BEGUN], True),
        ([report("node_ab", "node_cd")], False),  # kinds that Ray makes up where nothing scales
        ([None, json.dumps({"load_metrics_report": {}}).encode(), report("head")], True),  # not at once
        ([json.dumps({"autoscaler_report": None}).encode(), report("node_ab")], False),
    ],
)
def test_a_cluster_with_an_autoscaler_is_known_by_the_kinds_of_its_nodes(reports, told, grows):
    reports(*told)

    assert can_grow() is grows


@pytest.mark.parametrize(
    ("version", "kinds", "grows"),
    [("7", ["head", "gpu"], True), ("7", ["node_ab"], False), ("0", ["head"], False), ("7", [], False)],
)
def test_the_second_version_of_the_autoscaler_is_asked_too(reports, version, kinds, grows):
    reports(None, version=version, kinds=kinds)

    assert can_grow(wait_s=0.0) is grows


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_there_is_room_for_what_fits_and_for_some_that_make_the_cluster_grow():
    clock, fits = Clock(), [0]
    room = Room(lambda: fits[0], clock)

    assert room() == N_AHEAD
    fits[0] = 2
    assert room() == N_AHEAD, "the nodes were looked at too often"
    clock.now += LOOK_S
    assert room() == 2 + N_AHEAD
    clock.now += GROWS_NO_MORE_S
    assert room() == 2 + 1  # it grows no more
    fits[0] = 3
    clock.now += LOOK_S
    assert room() == 3 + N_AHEAD  # after all
    clock.now += GROWS_NO_MORE_S
    fits[0] = 0
    assert room() == N_AHEAD, "a cluster that shrank to nothing has to grow again"


def trial(status: str, **asked: float) -> SimpleNamespace:
    return SimpleNamespace(status=status, config={"resources": asked})


def test_that_every_trial_waits_is_said_soon_and_again_after_a_while():
    clock, said = Clock(), []
    waiting = Waiting(said.append, lambda: 0, clock)
    trials = [trial("TERMINATED"), trial("PENDING", gpu=0.5, cpu=1)]

    def step(seconds: float) -> int:
        clock.now += seconds
        waiting.on_step_end(0, trials)
        return len(said)

    assert step(0.0) == 0
    assert step(LOOK_S) == 1
    assert "0.5 GPU and 1 CPU" in said[0]
    assert "`resources: {gpu: 0}`" in said[0]
    assert step(LOOK_S) == 1
    assert step(SAY_AGAIN_S) == 2
    trials.append(trial("RUNNING"))
    assert step(SAY_AGAIN_S) == 2
    assert step(SAY_AGAIN_S) == 2


def test_a_trial_whose_process_starts_on_a_node_is_not_taken_for_one_that_waits_for_a_node():
    clock, said = Clock(), []
    waiting = Waiting(said.append, lambda: 1, clock)

    for clock.now in (0.0, SLOW_S / 2):
        waiting.on_step_end(0, [trial("PENDING", cpu=2)])
    assert said == []
    clock.now = SLOW_S
    waiting.on_step_end(0, [trial("PENDING", cpu=2)])

    (line,) = said
    assert "asks for 2 CPU:" in line
    assert "gpu" not in line, "it is told to do without what it does not ask for"


def test_ray_can_copy_what_waits():
    assert isinstance(pickle.loads(pickle.dumps(Waiting(lambda line: None, lambda: 0))), Waiting)


@pytest.mark.parametrize("comes", [True, False])
def test_a_gpu_is_asked_for_and_waited_for(monkeypatch, comes):
    asked, said, cancelled = [], [], []

    def remote(**options):
        asked.append(options)
        return lambda function: SimpleNamespace(remote=lambda: "a GPU")

    monkeypatch.setattr("ray.remote", remote)
    monkeypatch.setattr("ray.wait", lambda references, timeout: (references, []) if comes else ([], references))
    monkeypatch.setattr("ray.cancel", cancelled.append)

    assert growth.wait_for_gpu(said.append, 900.0) is comes
    assert asked[0]["num_gpus"] == 1
    assert "waiting up to 900 s" in said[0]
    assert (len(said), cancelled) == ((1, []) if comes else (2, ["a GPU"]))

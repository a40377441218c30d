import json
from dataclasses import replace

import pytest

from ichtune.cli.main import main
from ichtune.errors import ConfigError
from ichtune.search import local_cluster
from ichtune.search.cluster_state import ClusterState, Node, write_state
from ichtune.search.local_cluster import NodeStatus, Wanted

STATE = ClusterState(
    cluster_id="c" * 32,
    address="127.0.0.1:23456",
    dashboard_url="http://127.0.0.1:8265",
    token_path="a folder/token",
    temp_dir="temporary",
    nodes=(Node("head", 10, 1.5, 0, 0, "head.log"), Node("worker-1", 11, 2.5, 4, 1, "worker-1.log")),
)
GIB = 1024**3
NODES = [
    NodeStatus(STATE.nodes[0], True, "", {"memory": 2.0 * GIB}),
    NodeStatus(STATE.nodes[1], True, "", {"CPU": 4.0, "GPU": 1.0, "memory": 8.0 * GIB}),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ICHTUNE_CLUSTER_FOLDER", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def started(monkeypatch):
    """What ``up`` asks for; nothing is started."""
    asked = []

    def start(folder, wanted, on_step):
        asked.append((folder, wanted))
        on_step("starting the head")
        return STATE, len(asked) == 1

    monkeypatch.setattr(local_cluster, "start_cluster", start)
    return asked


def test_up_says_how_to_use_the_cluster(started, folder, capsys):
    assert main(["cluster", "up", "--workers", "3", "--cpus-per-worker", "4", "--gpus-per-worker", "1"]) == 0

    shown = capsys.readouterr()
    assert started == [(folder, Wanted(3, 4, 1, True))]
    assert "address    127.0.0.1:23456" in shown.out
    assert "dashboard  http://127.0.0.1:8265" in shown.out
    assert "export RAY_ADDRESS=127.0.0.1:23456" in shown.out
    assert "export RAY_AUTH_TOKEN_PATH='a folder/token'" in shown.out
    assert "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265" in shown.out
    assert "starting the head" in shown.err
    assert shown.err.splitlines()[-1] == "next: ichtune search --address auto"


def test_up_twice_says_that_it_runs(started, capsys):
    assert main(["cluster", "up"]) == 0
    assert main(["cluster", "up"]) == 0

    shown = capsys.readouterr()
    assert shown.err.count("the cluster runs already, with 1 workers") == 1
    assert shown.out.count("RAY_ADDRESS") == 2


def test_up_as_json_and_in_a_folder_of_choice(started, tmp_path, capsys):
    assert main(["cluster", "up", "--json", "--quiet", "--no-dashboard", "--folder", str(tmp_path / "mine")]) == 0

    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert started == [(tmp_path / "mine", Wanted(2, None, None, False))]
    assert told["started"] is True
    assert told["settings"]["RAY_AUTH_MODE"] == "token"
    assert told["nodes"][1] == {"name": "worker-1", "pid": 11, "cpus": 4, "gpus": 1}
    assert shown.err == ""


def test_up_says_what_is_wrong(monkeypatch, capsys):
    def refuse(*_):
        raise ConfigError("more GPUs than there are")

    monkeypatch.setattr(local_cluster, "start_cluster", refuse)

    assert main(["cluster", "up"]) == 2
    assert "error: more GPUs than there are" in capsys.readouterr().err


def test_status_shows_every_node(folder, monkeypatch, capsys):
    write_state(STATE, folder)
    monkeypatch.setattr(local_cluster, "nodes_of", lambda state: NODES)

    assert main(["cluster", "status"]) == 0

    shown = capsys.readouterr().out
    assert "127.0.0.1:23456  http://127.0.0.1:8265" in shown
    assert "worker-1" in shown
    assert "8.0 GiB" in shown


def test_status_names_the_dead(folder, monkeypatch, capsys):
    write_state(STATE, folder)
    dead = replace(NODES[1], lives=False, why="its process 11 has ended; see worker-1.log", resources={})
    monkeypatch.setattr(local_cluster, "nodes_of", lambda state: [NODES[0], dead])

    assert main(["cluster", "status", "--json"]) == 0

    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert told["running"] is True
    assert [(node["name"], node["lives"]) for node in told["nodes"]] == [("head", True), ("worker-1", False)]
    assert "node worker-1 is dead: its process 11 has ended" in shown.err


def test_status_without_a_cluster_is_no_success(folder, monkeypatch, capsys):
    assert main(["cluster", "status"]) == 7
    assert "no cluster runs here; `ichtune cluster up` starts one" in capsys.readouterr().err

    write_state(STATE, folder)
    monkeypatch.setattr(local_cluster, "nodes_of", lambda s: [replace(n, lives=False, why="gone") for n in NODES])
    assert main(["cluster", "status", "--json"]) == 7
    shown = capsys.readouterr()
    assert json.loads(shown.out)["running"] is False
    assert "every node of the cluster has ended" in shown.err


def test_down_says_what_it_ended(monkeypatch, capsys):
    answers = iter([STATE, None])
    monkeypatch.setattr(local_cluster, "stop_cluster", lambda folder: next(answers))

    assert main(["cluster", "down"]) == 0
    assert main(["cluster", "down"]) == 0

    assert capsys.readouterr().err.splitlines() == ["ended the cluster at 127.0.0.1:23456", "no cluster runs here"]


@pytest.mark.parametrize("command", ["up", "status", "down"])
def test_every_sub_command_explains_itself(command, capsys):
    assert main(["cluster", command, "--help"]) == 0
    assert f"Example: ichtune cluster {command}" in capsys.readouterr().out

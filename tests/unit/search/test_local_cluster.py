"""What ``ichtune cluster`` decides, with processes that sleep in the place of Ray's; tests/cluster has real ones."""

import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ichtune.errors import ConfigError, ConflictError, NothingUsableError
from ichtune.locks import only_one
from ichtune.search import local_cluster, node_processes
from ichtune.search.cluster_state import STATE_FILE, read_state, write_state
from ichtune.search.local_cluster import Wanted, nodes_of, settings_for, start_cluster, stop_cluster, visible_gpus
from ichtune.search.loopback import LOOPBACK_SWITCH

pytestmark = pytest.mark.slow  # starts and ends real processes

SLEEPING = (sys.executable, "-c", "import sys, time; print(*sys.argv[1:], flush=True); time.sleep(120)")
ENDING = (sys.executable, "-c", "print('no more sockets')")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for one cluster, of nodes that sleep; what is left at the end is ended."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(local_cluster, "_RAY", SLEEPING)
    monkeypatch.setattr(local_cluster, "END_WAIT_S", 5.0)
    monkeypatch.setattr(local_cluster, "_listens", lambda address: True)
    monkeypatch.setattr(
        local_cluster,
        "_known_to_head",
        lambda state: {n.name: joined(state, n) for n in state.nodes if joined(state, n)},
    )
    yield tmp_path / "cluster"
    stop_cluster(tmp_path / "cluster")


def joined(state, node) -> dict[str, float]:
    """What the head would have of a node: nothing before it said that it started, or once it has ended."""
    started = "--block" in Path(node.log).read_text() and node_processes.is_alive(state.process(node))
    return {"CPU": node.cpus} if started else {}


def command_line(folder: Path, name: str) -> list[str]:
    log = folder / "logs" / f"{name}.log"
    while not (line := log.read_text()).endswith("\n"):
        pass
    return line.split()


def quietly(step: str) -> None:
    """Tell nobody."""


def test_a_head_and_workers_are_started_and_noted(folder):
    steps: list[str] = []

    state, is_new = start_cluster(folder, Wanted(workers=2, cpus_per_worker=3, gpus_per_worker=1), steps.append)

    assert is_new
    assert read_state(folder) == state
    assert [(n.name, n.cpus, n.gpus) for n in state.nodes] == [("head", 0, 0), ("worker-1", 3, 1), ("worker-2", 3, 1)]
    assert stat.S_IMODE(os.stat(state.token_path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(state.temp_dir).st_mode) == 0o700
    assert steps[0] == "starting the head"
    head, worker = command_line(folder, "head"), command_line(folder, "worker-1")
    assert {"start", "--head", "--block", f"--port={state.address.split(':')[1]}", "--num-cpus=0"} <= set(head)
    assert {"start", f"--address={state.address}", "--block", "--num-cpus=3", "--num-gpus=1"} <= set(worker)
    agents = {word for line in (head, worker, command_line(folder, "worker-2")) for word in line if "agent" in word}
    assert len(agents) == 3, "two nodes of one host would listen on the same port"


def test_nodes_take_nothing_over_from_the_shell_but_the_search_path(folder, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "another cluster's")
    monkeypatch.setattr(local_cluster, "_RAY", (sys.executable, "-c", "import os; print(dict(os.environ))"))
    monkeypatch.setattr(local_cluster, "START_TRIES", 1)
    with pytest.raises(NothingUsableError) as refused:
        start_cluster(folder, Wanted(), quietly)

    printed = str(refused.value)
    assert "another cluster's" not in printed
    assert f"'{LOOPBACK_SWITCH}': '0'" in printed
    assert "'RAY_AUTH_MODE': 'token'" in printed
    assert f"'PATH': '{Path(sys.executable).parent}{os.pathsep}" in printed


def test_up_twice_is_one_cluster(folder):
    first, _ = start_cluster(folder, Wanted(workers=1), quietly)

    again, is_new = start_cluster(folder, Wanted(workers=2), quietly)

    assert not is_new
    assert again == first


def test_down_ends_the_processes_and_leaves_nothing(folder):
    state, _ = start_cluster(folder, Wanted(workers=1), quietly)

    assert stop_cluster(folder) == state

    assert not any(node_processes.is_alive(state.process(node)) for node in state.nodes)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert not Path(state.temp_dir).exists()
    assert stop_cluster(folder) is None


def test_a_state_from_before_a_reboot_ends_nobody(folder):
    """Its numbers belong to other processes by now: here to those of a cluster in another folder."""
    other = folder.with_name("other")
    running, _ = start_cluster(other, Wanted(workers=1), quietly)
    stale = replace(running, cluster_id="of another day", temp_dir=str(folder.with_name("gone")))
    folder.mkdir()
    write_state(replace(stale, token_path=str(folder / "token")), folder)
    try:
        assert not any(found.lives for found in nodes_of(read_state(folder)))
        fresh, is_new = start_cluster(folder, Wanted(workers=1), quietly)

        assert is_new
        assert fresh.cluster_id != stale.cluster_id
        assert all(node_processes.is_alive(running.process(node)) for node in running.nodes)
    finally:
        stop_cluster(other)


def test_status_names_the_dead_and_why(folder, monkeypatch):
    state, _ = start_cluster(folder, Wanted(workers=2), quietly)
    worker = state.nodes[1]
    node_processes.end([state.process(worker)], "nobody's mark", 5)

    head, dead, alive = nodes_of(state)

    assert head.lives
    assert alive.lives
    assert alive.resources == {"CPU": alive.node.cpus}
    assert not dead.lives
    assert f"its process {worker.pid} has ended" in dead.why

    known = local_cluster._known_to_head
    monkeypatch.setattr(local_cluster, "_known_to_head", lambda s: {"head": known(s)["head"]})
    assert nodes_of(state)[2].why == "the head does not count on it"
    node_processes.end([state.process(state.nodes[0])], "nobody's mark", 5)
    assert [found.lives for found in nodes_of(state)] == [False, False, False]
    assert nodes_of(state)[2].why == "the head has ended"


def test_up_after_the_head_died_starts_anew_and_leaves_no_old_worker(folder):
    old, _ = start_cluster(folder, Wanted(workers=1), quietly)
    node_processes.end([old.process(old.nodes[0])], "nobody's mark", 5)

    _, is_new = start_cluster(folder, Wanted(workers=1), quietly)

    assert is_new
    assert not node_processes.is_alive(old.process(old.nodes[1]))


def test_a_node_that_does_not_start_is_tried_again_and_then_named(folder, monkeypatch):
    monkeypatch.setattr(local_cluster, "_RAY", ENDING)

    with pytest.raises(NothingUsableError, match=r"node head did not start: no more sockets; see .*head\.log"):
        start_cluster(folder, Wanted(), quietly)

    assert read_state(folder) is None
    assert (folder / "logs" / "head.log").is_file()


def test_a_node_that_fails_once_is_started_again(folder, monkeypatch):
    commands = iter([ENDING, SLEEPING, SLEEPING])
    started = node_processes.start
    monkeypatch.setattr(node_processes, "start", lambda command, *rest: started((*next(commands), *command[3:]), *rest))

    state, _ = start_cluster(folder, Wanted(workers=1), quietly)

    assert [node.name for node in state.nodes] == ["head", "worker-1"]
    assert all(found.lives for found in nodes_of(state))


def test_an_interrupted_start_leaves_nothing_running(folder):
    def interrupt(step: str) -> None:
        if "worker-1" in step:
            seen.append(read_state(folder))
            raise KeyboardInterrupt

    seen: list = []
    with pytest.raises(KeyboardInterrupt):
        start_cluster(folder, Wanted(), interrupt)

    assert not node_processes.is_alive(seen[0].process(seen[0].nodes[0]))
    assert not (folder / STATE_FILE).exists()


def test_one_command_at_a_time(folder):
    with only_one(folder / "lock", "held"), pytest.raises(ConflictError, match="another command starts or ends"):
        start_cluster(folder, Wanted(), quietly)


def test_a_start_that_was_killed_before_any_node_is_begun_anew(folder):
    state, _ = start_cluster(folder, Wanted(workers=1), quietly)
    stop_cluster(folder)
    write_state(replace(state, nodes=()), folder)

    assert nodes_of(read_state(folder)) == []
    _, is_new = start_cluster(folder, Wanted(workers=1), quietly)

    assert is_new


def test_without_a_dashboard_there_is_no_url(folder):
    state, _ = start_cluster(folder, Wanted(workers=1, dashboard=False), quietly)

    assert state.dashboard_url == ""
    assert "--include-dashboard=false" in command_line(folder, "head")
    assert "RAY_API_SERVER_ADDRESS" not in settings_for(state)


def test_gpus_of_the_machine_are_shared_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 5,6,7")
    assert visible_gpus() == ["4", "5", "6", "7"]

    shares = local_cluster._shares(Wanted(workers=2))
    assert [(share.gpus, share.visible) for share in shares] == [(2, "4,5"), (2, "6,7")]
    assert [share.visible for share in local_cluster._shares(Wanted(workers=2, gpus_per_worker=0))] == ["", ""]
    with pytest.raises(ConfigError, match=r"3 workers with 2 GPUs each need 6, this machine has 4"):
        local_cluster._shares(Wanted(workers=3, gpus_per_worker=2))


@pytest.mark.parametrize("none", ["", "-1"])
def test_gpus_that_are_not_there_are_a_declaration(none, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)

    shares = local_cluster._shares(Wanted(workers=2, gpus_per_worker=1))

    assert [(share.gpus, share.visible) for share in shares] == [(1, None), (1, None)]
    assert all(share.cpus >= 1 for share in shares)


def test_a_port_that_is_taken_is_not_chosen():
    import socket

    (port,) = local_cluster._free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        assert not local_cluster._is_free(port)

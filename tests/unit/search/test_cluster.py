import os
import socket
import stat

import pytest

from ichtune.errors import ConfigError
from ichtune.search import cluster
from ichtune.search.cluster import Cluster, ray_session
from ichtune.search.cluster_state import FOLDER_VARIABLE, ClusterState, write_state
from ichtune.search.loopback import LOOPBACK_SWITCH

VARIABLES = (
    "RAY_ADDRESS",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_AUTH_MODE",
    "RAY_TMPDIR",
    LOOPBACK_SWITCH,
    FOLDER_VARIABLE,
)


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # recorded, so that whatever the code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


class NoRay:
    dashboard_url = "127.0.0.1:1"


@pytest.fixture
def started(monkeypatch):
    """Record what a local Ray would be started with, and start none."""
    calls = []
    monkeypatch.setattr(cluster, "_start_local", lambda dashboard, job_name: calls.append(dict(os.environ)) or NoRay())
    monkeypatch.setattr(cluster, "_describe", lambda url, token, joined: Cluster(url, token, 1, 0, joined))
    return calls


def test_a_local_ray_is_started_on_loopback_with_a_token_of_its_owner_only(started, tmp_path):
    token = tmp_path / "searches" / "token"

    with ray_session(None, token) as made:
        pass

    (environment,) = started
    assert environment[LOOPBACK_SWITCH] == "0"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(token) == made.token_path
    assert len(token.read_text()) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert LOOPBACK_SWITCH not in os.environ


def test_sigterm_while_ray_starts_is_as_clean_as_ctrl_c(monkeypatch, tmp_path):
    def ended_by_ray(dashboard, job_name):
        raise SystemExit(15)

    monkeypatch.setattr(cluster, "_start_local", ended_by_ray)

    with pytest.raises(KeyboardInterrupt), ray_session(None, tmp_path / "token"):
        pass


def test_what_ray_says_of_a_death_is_kept_out_of_the_results(started, tmp_path, capsys):
    from ray._private import worker

    before = worker.print_to_stdstream
    with ray_session(None, tmp_path / "token"):
        worker.print_to_stdstream({"lines": ["A worker died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)

    told = capsys.readouterr()
    assert told.out == ""
    assert "A worker died" in told.err
    assert worker.print_to_stdstream is before


def test_a_token_is_kept_between_sessions_and_closed_to_others(started, tmp_path):
    token = tmp_path / "token"
    token.write_text("a" * 64)
    token.chmod(0o644)

    with ray_session(None, token):
        pass

    assert token.read_text() == "a" * 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_a_token_of_the_users_own_is_left_alone(started, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")

    with ray_session(None, tmp_path / "token"):
        pass

    assert not (tmp_path / "token").exists()


def test_an_address_where_nobody_listens_is_said_at_once(tmp_path):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"

        wrong = pytest.raises(ConfigError, match=f"cannot join a Ray cluster at '{address}'.*leave --address")
        with wrong, ray_session(address, tmp_path / "token"):
            pass

    assert not (tmp_path / "token").exists()


def test_the_address_of_the_environment_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "no-such-host.invalid:6379")

    with pytest.raises(ConfigError, match=r"no-such-host\.invalid:6379"), ray_session(None, tmp_path / "token"):
        pass


@pytest.fixture
def joined(monkeypatch):
    """Record which address would be joined with which settings, and join none."""
    calls = []

    def join(address, job_name):
        calls.append((address, job_name, dict(os.environ)))
        return NoRay()

    monkeypatch.setattr(cluster, "_join", join)
    monkeypatch.setattr(cluster, "_check_can_be_joined", lambda address: None)
    monkeypatch.setattr(cluster, "read_settings_again", lambda: None)
    monkeypatch.setattr(cluster, "_describe", lambda url, token, joined: Cluster(url, token, 1, 0, joined))
    return calls


@pytest.fixture
def up(tmp_path, monkeypatch):
    """A cluster of ``ichtune cluster up``, at whose address somebody listens."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        state = ClusterState("id", address, "", str(folder / "token"), str(tmp_path), ())
        write_state(state, folder)
        yield state


def test_auto_is_the_cluster_of_cluster_up_with_its_token(up, joined, tmp_path):
    with ray_session("auto", tmp_path / "unused", job_name="windows") as made:
        pass

    ((address, job_name, environment),) = joined
    assert (address, job_name) == (up.address, "windows")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == up.token_path
    assert environment[LOOPBACK_SWITCH] == "0", "Ray would look for it at this machine's own address"
    assert made.joined


def test_its_address_is_enough_and_a_token_that_is_named_counts(up, joined, tmp_path, monkeypatch):
    with ray_session(up.address, tmp_path / "unused"):
        pass
    assert joined[0][2]["RAY_AUTH_TOKEN_PATH"] == up.token_path

    monkeypatch.setenv("RAY_AUTH_TOKEN", "my own")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    with ray_session(up.address, tmp_path / "unused"):
        pass
    assert "RAY_AUTH_TOKEN_PATH" not in joined[1][2]


def test_auto_without_such_a_cluster_is_what_the_environment_or_ray_start_names(joined, tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "none"))
    monkeypatch.setenv("RAY_ADDRESS", "head.example:6379")
    with ray_session("auto", tmp_path / "unused"):
        pass
    assert joined[0][0] == "head.example:6379"

    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: None)
    none = pytest.raises(ConfigError, match="no Ray cluster is known on this machine: `ichtune cluster up`")
    with none, ray_session("auto", tmp_path / "unused"):
        pass


def test_a_cluster_that_is_gone_is_not_taken_for_there(joined, tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "state"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    write_state(ClusterState("id", address, "", "token", "", ()), tmp_path / "state")
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: None)

    with pytest.raises(ConfigError, match="no Ray cluster is known"), ray_session("auto", tmp_path / "unused"):
        pass


@pytest.mark.parametrize(
    ("address", "settings", "said"),
    [
        ("http://127.0.0.1:8265", {}, "this is a dashboard's address"),
        ("127.0.0.1:6379", {"RAY_AUTH_MODE": "token"}, "RAY_AUTH_MODE is token, but no token is given"),
        ("127.0.0.1:6379", {"RAY_AUTH_TOKEN_PATH": "gone/token"}, "names gone/token, which does not exist"),
    ],
)
def test_what_cannot_be_joined_is_said_at_once(address, settings, said, tmp_path, monkeypatch):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=said), ray_session(address, tmp_path / "token"):
        pass


def test_the_job_is_named_after_the_search():
    assert cluster._job_config("windows").metadata == {"job_name": "windows"}
    assert cluster._job_config(None) is None

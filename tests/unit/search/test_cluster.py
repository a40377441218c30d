import os
import socket
import stat

import pytest

from ichtune.errors import ConfigError
from ichtune.search import cluster
from ichtune.search.cluster import Cluster, ray_session

VARIABLES = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", cluster.LOOPBACK_SWITCH)


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
    monkeypatch.setattr(cluster, "_start_local", lambda dashboard: calls.append(dict(os.environ)) or NoRay())
    monkeypatch.setattr(cluster, "_describe", lambda url, token, joined: Cluster(url, token, 1, 0, joined))
    return calls


def test_a_local_ray_is_started_on_loopback_with_a_token_of_its_owner_only(started, tmp_path):
    token = tmp_path / "searches" / "token"

    with ray_session(None, token) as made:
        pass

    (environment,) = started
    assert environment[cluster.LOOPBACK_SWITCH] == "0"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(token) == made.token_path
    assert len(token.read_text()) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert cluster.LOOPBACK_SWITCH not in os.environ


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

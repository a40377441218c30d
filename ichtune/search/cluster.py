"""Starting Ray on this machine, or joining a cluster that is there."""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ichtune.errors import ConfigError
from ichtune.interrupts import as_ctrl_c

#: Bytes of shared memory that a Ray of ours reserves; slices are memory-mapped from the cache and need none of it.
OBJECT_STORE_BYTES = 256 * 1024 * 1024
#: Seconds that Ray's job stop leaves a search to end cleanly, before it kills.
JOB_STOP_WAIT_S = "30"
#: Seconds to wait for somebody to answer at the address of a cluster; Ray itself would wait for minutes.
CONNECT_TIMEOUT_S = 10.0
#: Ray's switch between 127.0.0.1 and the host's own address; 0 is 127.0.0.1.
LOOPBACK_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@dataclass(frozen=True)
class Cluster:
    """A Ray that is ready: where its dashboard is and what it has."""

    dashboard_url: str
    token_path: str
    n_cpus: float
    n_gpus: float
    joined: bool


@contextmanager
def ray_session(address: str | None, token_path: Path, *, dashboard: bool = True) -> Iterator[Cluster]:
    """Start Ray on this machine, or join the cluster at ``address`` or ``RAY_ADDRESS``, for the length of a block.

    A Ray that is started here listens on the loopback interface only, and asks for a token.

    Args:
        address: of a cluster to join, or None.
        token_path: where the token of a Ray started here is kept, readable by its owner only.
        dashboard: whether a Ray that is started here has a dashboard.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    wanted = address or os.environ.get("RAY_ADDRESS")
    local = wanted in (None, "", "local")
    _set_environment(local, token_path)
    import ray

    if ray.is_initialized():
        yield _describe("", "", joined=True)
        return
    with _on_loopback(local):
        context = _start_local(dashboard) if local else _join(str(wanted))
        try:
            with _sigterm_as_sigint():  # after Ray's start, which sets a handler of its own
                yield _describe(context.dashboard_url, os.environ.get("RAY_AUTH_TOKEN_PATH", ""), joined=not local)
        finally:
            ray.shutdown()


def _set_environment(local: bool, token_path: Path) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not local:
        os.environ.setdefault("RAY_AUTH_MODE", "token" if _has_token() else "disabled")
        return
    os.environ.setdefault("RAY_JOB_STOP_WAIT_TIME_S", JOB_STOP_WAIT_S)
    if os.environ.get("RAY_AUTH_MODE") != "disabled" and not _has_token():
        _write_token(token_path)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_path.resolve())


@contextmanager
def _on_loopback(local: bool) -> Iterator[None]:
    """Let every server of a local Ray listen on 127.0.0.1 only; as Ray comes, several listen on all interfaces.

    Ray has one switch for this, on every platform whatever its name says. It reads the variable when it is
    imported, and its own processes read it again. A cluster that is joined is left as its owner set it up.
    """
    from ray._private import ray_constants

    before = (ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(LOOPBACK_SWITCH))
    if local:
        ray_constants.ENABLE_RAY_CLUSTER = False
        os.environ[LOOPBACK_SWITCH] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            os.environ.pop(LOOPBACK_SWITCH, None)
        else:
            os.environ[LOOPBACK_SWITCH] = before[1]


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _write_token(path: Path) -> None:
    if path.is_file() and path.stat().st_size:
        path.chmod(0o600)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))


def _start_local(dashboard: bool):  # type: ignore[no-untyped-def]
    import ray

    return ray.init(
        address="local",
        include_dashboard=dashboard,
        dashboard_host="127.0.0.1",
        object_store_memory=OBJECT_STORE_BYTES,
        configure_logging=True,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


def _join(address: str):  # type: ignore[no-untyped-def]
    import ray

    try:
        _check_somebody_listens(address)
        return ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"cannot join a Ray cluster at {address!r}: {first}. Check the address (`ray status`), set RAY_AUTH_TOKEN "
            f"or RAY_AUTH_TOKEN_PATH if it asks for a token, or leave --address and RAY_ADDRESS out to start Ray here"
        ) from error


def _check_somebody_listens(address: str) -> None:
    host, _, port = address.split("://")[-1].rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S):
            pass


def _describe(dashboard_url: str, token_path: str, joined: bool) -> Cluster:
    import ray

    resources = ray.cluster_resources()
    url = f"http://{dashboard_url}" if dashboard_url else ""
    return Cluster(url, token_path, resources.get("CPU", 0.0), resources.get("GPU", 0.0), joined)


@contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM (job stop, Kubernetes, systemd) end a search as cleanly as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, as_ctrl_c)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

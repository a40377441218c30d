"""Starting Ray on this machine, or joining a cluster that is there."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ichtune.errors import ConfigError, DataError
from ichtune.interrupts import as_ctrl_c
from ichtune.search.cluster_state import ClusterState, cluster_folder, read_state
from ichtune.search.loopback import answers, is_on_loopback_only, on_loopback
from ichtune.search.own_ray import start_own_ray
from ichtune.search.ray_token import (
    MODE,
    TOKEN,
    TOKEN_PATH,
    has_token,
    named_token,
    read_settings_again,
    token_file,
    write_token,
)

#: Bytes of shared memory that a Ray of ours reserves; slices are memory-mapped from the cache and need none of it.
OBJECT_STORE_BYTES = 256 * 1024 * 1024
#: Seconds that Ray's job stop leaves a search to end cleanly, before it kills.
JOB_STOP_WAIT_S = "30"
#: Seconds to wait for somebody to answer at the address of a cluster; Ray itself would wait for minutes.
CONNECT_TIMEOUT_S = 10.0
#: The address that stands for the cluster of ``ichtune cluster up``, or else for that of ``ray start``.
AUTO = "auto"
#: The address that stands for a Ray of this process's own.
LOCAL = "local"


@dataclass(frozen=True)
class Cluster:
    """A Ray that is ready: where its dashboard is and what it has."""

    dashboard_url: str
    token_path: str
    n_cpus: float
    n_gpus: float
    joined: bool


@contextmanager
def ray_session(
    address: str | None, token_path: Path, *, dashboard: bool = True, job_name: str | None = None
) -> Iterator[Cluster]:
    """Start Ray on this machine, or join the cluster at ``address`` or ``RAY_ADDRESS``, for the length of a block.

    A Ray that is started here listens on the loopback interface only, and asks for a token. A cluster that is joined
    is left as its owner set it up.

    Args:
        address: of a cluster to join; ``"auto"`` is the cluster of ``ichtune cluster up``, or where there is none the
            one that ``ray start`` started here; None for ``RAY_ADDRESS``, or a Ray of this process's own.
        token_path: where the token of a Ray started here is kept, readable by its owner only.
        dashboard: whether a Ray that is started here has a dashboard.
        job_name: what the Ray dashboard calls this process's job.

    Raises:
        ConfigError: there is no cluster at the address, or it refuses the token.
        NothingUsableError: Ray does not start on this machine.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or LOCAL
    local = wanted == LOCAL
    own = None if local else _cluster_of_this_user(wanted)
    _set_environment(local, token_path, own)
    import ray

    if ray.is_initialized():
        yield _describe("", "", joined=True)
        return
    wanted = own.address if own else _recorded_address() if wanted == AUTO else wanted
    if not local:
        read_settings_again()
        _check_can_be_joined(wanted)
    with on_loopback(local or is_on_loopback_only(wanted)), _ray_speaks_on_stderr():
        try:
            context = _start_local(dashboard, job_name) if local else _join(wanted, job_name)
        except SystemExit as ended:  # SIGTERM while Ray starts: its own handler, which is there before ours
            raise KeyboardInterrupt from ended
        try:
            with _sigterm_as_sigint():  # after Ray's start, which sets a handler of its own
                yield _describe(context.dashboard_url, token_file(), joined=not local)
        finally:
            ray.shutdown()


def _cluster_of_this_user(wanted: str) -> ClusterState | None:
    """Return the cluster of ``ichtune cluster up``, if it is the one that is wanted and somebody answers there."""
    try:
        state = read_state(cluster_folder())
    except DataError:
        return None
    if state is None or wanted not in (AUTO, state.address):
        return None
    host, _, port = state.address.rpartition(":")
    return state if answers(host, int(port), CONNECT_TIMEOUT_S) else None


def _recorded_address() -> str:
    """Return the address of the cluster whose machine this is: what ``ray start`` wrote down, as on a cloud's head.

    Ray itself would join any Ray that runs here, whoever's it is.

    Raises:
        ConfigError: there is none.
    """
    from ray._private.services import find_bootstrap_address

    named = os.environ.get("RAY_ADDRESS") or AUTO
    found = find_bootstrap_address(None) if named == AUTO else named
    if not found:
        raise ConfigError("no Ray cluster is known on this machine: `ichtune cluster up` starts one")
    return str(found)


def _set_environment(local: bool, token_path: Path, own: ClusterState | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if own is not None and not named_token():
        os.environ.update({TOKEN_PATH: own.token_path, MODE: "token"})
    if not local:
        os.environ.setdefault(MODE, "token" if has_token() else "disabled")
        return
    os.environ.setdefault("RAY_JOB_STOP_WAIT_TIME_S", JOB_STOP_WAIT_S)
    if os.environ.get(MODE) != "disabled" and not has_token():
        write_token(token_path)
        os.environ[TOKEN_PATH] = str(token_path.resolve())


def _start_local(dashboard: bool, job_name: str | None):  # type: ignore[no-untyped-def]
    import ray

    return start_own_ray(
        lambda: ray.init(
            address=LOCAL,
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
            configure_logging=True,
            logging_level=logging.ERROR,
            log_to_driver=False,
            job_config=_job_config(job_name),
        )
    )


def _join(address: str, job_name: str | None):  # type: ignore[no-untyped-def]
    import ray

    try:
        return ray.init(
            address=address, logging_level=logging.ERROR, log_to_driver=False, job_config=_job_config(job_name)
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _cannot_join(address, _first_line(error)) from error


def _job_config(job_name: str | None):  # type: ignore[no-untyped-def]
    from ray.job_config import JobConfig

    return JobConfig(metadata={"job_name": job_name}) if job_name else None


def _check_can_be_joined(address: str) -> None:
    """Find out at once what Ray would try for 20 s to minutes: that nobody answers, or that the token is refused.

    Raises:
        ConfigError: it cannot be joined.
    """
    token = os.environ.get(TOKEN_PATH)
    if token and not os.environ.get(TOKEN) and not Path(token).is_file():
        raise ConfigError(f"RAY_AUTH_TOKEN_PATH names {token}, which does not exist; name the file with the token")
    if os.environ[MODE].lower() == "token" and not has_token():
        raise _cannot_join(address, "RAY_AUTH_MODE is token, but no token is given")
    if address.startswith(("http://", "https://")):
        raise _cannot_join(address, "this is a dashboard's address")
    host, _, port = address.rpartition(":")
    if "://" in host or not host or not port.isdigit():
        return  # Ray's own names: auto, ray://
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S):
            pass
        GcsClient(address=address)
    except ray.exceptions.AuthenticationError as error:
        told = "it refuses the token that is given" if has_token() else "it asks for a token and none is given"
        raise _cannot_join(address, told) from error
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise _cannot_join(address, _first_line(error)) from error


def _cannot_join(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"cannot join a Ray cluster at {address!r}: {why}. Check the address (`ray status`), set RAY_AUTH_TOKEN "
        f"or RAY_AUTH_TOKEN_PATH if it asks for a token, or leave --address and RAY_ADDRESS out to start Ray here"
    )


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _describe(dashboard_url: str, token_path: str, joined: bool) -> Cluster:
    import ray

    resources = ray.cluster_resources()
    url = f"http://{dashboard_url}" if dashboard_url else ""
    return Cluster(url, token_path, resources.get("CPU", 0.0), resources.get("GPU", 0.0), joined)


@contextmanager
def _ray_speaks_on_stderr() -> Iterator[None]:
    """Let what Ray says of a worker that died go to stderr: stdout is for results, lines of JSON among them."""
    from ray._private import worker

    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, *args, **options: before({**data, "is_err": True}, *args, **options)
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM (job stop, Kubernetes, ``timeout``, systemd with KillMode=mixed) end a search as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, as_ctrl_c)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Keeping a Ray of this machine on the loopback interface, and joining one that is kept there.

Ray has one switch between 127.0.0.1 and the host's own address, on every platform whatever its name says. Switched
off, every server of a node listens on 127.0.0.1 only, but Ray then refuses a second node, and with it switched on it
replaces 127.0.0.1 in an address by the host's own. Both are settled here.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Ray's switch between 127.0.0.1 and the host's own address; 0 is 127.0.0.1.
LOOPBACK_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
#: The variable that names a function for ``ray start`` to call before it starts a node.
START_HOOK = "RAY_START_HOOK"
#: The name of ``stay_on_loopback`` for that variable.
STAY_ON_LOOPBACK = f"{__name__}.stay_on_loopback"
#: Seconds to wait for an answer from the host's own address, which is this machine.
OWN_ADDRESS_TIMEOUT_S = 2.0


def stay_on_loopback(parameters: Any, is_head: bool) -> None:
    """Let ``ray start`` start a node on 127.0.0.1, be it the first or a further one; Ray calls this as its start hook.

    Args:
        parameters: Ray's parameters of the node.
        is_head: whether it is the head.
    """
    from ray._common.network_utils import get_localhost_ip
    from ray._private import ray_constants, services

    os.environ.pop(START_HOOK, None)  # for this node only, not for what is started on it
    ray_constants.ENABLE_RAY_CLUSTER = True  # else a second node is refused
    services.get_node_ip_address = lambda address=None: get_localhost_ip()
    parameters.node_ip_address = get_localhost_ip()


@contextmanager
def on_loopback(wanted: bool) -> Iterator[None]:
    """Switch Ray to 127.0.0.1 for the length of a block.

    Ray reads the variable when it is imported, and its own processes read it again.

    Args:
        wanted: otherwise Ray stays as it is.
    """
    from ray._private import ray_constants

    before = (ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(LOOPBACK_SWITCH))
    if wanted:
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


def is_on_loopback_only(address: str) -> bool:
    """Say whether a Ray on this machine answers on 127.0.0.1 but not at the host's own address.

    Args:
        address: ``host:port``; one whose host is not this machine's loopback never is.
    """
    from ray._common.network_utils import is_localhost, node_ip_address_from_perspective

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not is_localhost(host):
        return False
    own = node_ip_address_from_perspective()
    return not answers(own, int(port), OWN_ADDRESS_TIMEOUT_S)


def answers(host: str, port: int, timeout_s: float) -> bool:
    """Say whether somebody takes a TCP connection."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False

import os
import socket
import subprocess
import sys

import pytest

from ichtune.search.loopback import LOOPBACK_SWITCH, START_HOOK, STAY_ON_LOOPBACK, is_on_loopback_only, on_loopback


@pytest.fixture
def listening():
    """Return a function that listens at an address until the test ends, and says on which port."""
    opened = []

    def listen(host: str) -> int:
        server = socket.create_server((host, 0))
        opened.append(server)
        return server.getsockname()[1]

    yield listen
    for server in opened:
        server.close()


def test_a_server_on_loopback_is_told_from_one_on_every_interface(listening):
    from ray._common.network_utils import is_localhost, node_ip_address_from_perspective

    if is_localhost(node_ip_address_from_perspective()):
        pytest.skip("this machine has no address but loopback")

    assert is_on_loopback_only(f"127.0.0.1:{listening('127.0.0.1')}")
    assert not is_on_loopback_only(f"127.0.0.1:{listening('0.0.0.0')}")
    assert not is_on_loopback_only("head.example:6379")
    assert not is_on_loopback_only("auto")


def test_the_switch_is_put_back():
    from ray._private import ray_constants

    before = (ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(LOOPBACK_SWITCH))
    with on_loopback(True):
        assert ray_constants.ENABLE_RAY_CLUSTER is False
        assert os.environ[LOOPBACK_SWITCH] == "0"
    with on_loopback(False):
        assert (ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(LOOPBACK_SWITCH)) == before
    assert (ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(LOOPBACK_SWITCH)) == before


def test_ray_start_takes_a_further_node_on_loopback():
    """In a process of its own: the hook changes Ray for good."""
    code = f"""
import os
from types import SimpleNamespace
from ray._common.utils import load_class
from ray._private import ray_constants, services
parameters = SimpleNamespace(node_ip_address=None)
load_class(os.environ["{START_HOOK}"])(parameters, False)
print(parameters.node_ip_address, services.canonicalize_bootstrap_address("127.0.0.1:5"))
print(ray_constants.ENABLE_RAY_CLUSTER, "{START_HOOK}" in os.environ)
"""
    environment = {**os.environ, START_HOOK: STAY_ON_LOOPBACK, LOOPBACK_SWITCH: "0"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)

    assert ran.stdout.splitlines() == ["127.0.0.1 127.0.0.1:5", "True False"], ran.stderr


def test_the_hook_has_what_ray_gives_it():
    """``ray start`` passes its parameters and whether the node is the head, by position."""
    import inspect

    from ray.scripts import scripts

    assert "load_class(os.environ[ray_constants.RAY_START_HOOK])(ray_params, head)" in inspect.getsource(scripts)

"""A Ray that ichtune starts opens no port beyond the loopback interface and lets nobody in without its token."""

import os
import stat
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ichtune.search.cluster import ray_session

pytestmark = pytest.mark.slow

LISTENING = "0A"


def listening_addresses() -> dict[tuple[str, int], str]:
    """Return every TCP address that is listened on, by (family, socket inode)."""
    found = {}
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING:
                found[family, int(fields[9])] = fields[1].split(":")[0]
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(not Path("/proc/net/tcp").is_file(), reason="lists sockets through Linux's /proc")
def test_nothing_listens_beyond_loopback_and_the_dashboard_asks_for_the_token(tmp_path, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = set(listening_addresses())
    token = tmp_path / "ray_token"

    with ray_session(None, token) as cluster:
        opened = {key: address for key, address in listening_addresses().items() if key not in before}
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{cluster.dashboard_url}/api/jobs/", timeout=20)
        request = urllib.request.Request(
            f"{cluster.dashboard_url}/api/jobs/", headers={"Authorization": f"Bearer {token.read_text()}"}
        )
        answer = urllib.request.urlopen(request, timeout=20).status

    assert len(opened) >= 5, "Ray's servers were not seen; the test proves nothing"
    assert set(opened.values()) <= LOOPBACK
    assert refused.value.code == 401
    assert answer == 200
    assert stat.S_IMODE(os.stat(token).st_mode) == 0o600
    assert cluster.n_cpus >= 1
    assert not cluster.joined

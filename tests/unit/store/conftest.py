import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ichtune.store import store as module
from ichtune.store.store import Store


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS_S", (0.0, 0.0))


@pytest.fixture
def memory_url() -> Iterator[str]:
    """A URL in this process's memory that no other test uses."""
    url = f"memory://{uuid.uuid4().hex}/work"
    yield url
    memory = fsspec.filesystem("memory")
    if memory.exists(url):
        memory.rm(url, recursive=True)


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path, memory_url: str) -> str:
    """A URL of each kind that a test can have without a server."""
    return memory_url if request.param == "memory" else f"file://{tmp_path}/there"


@pytest.fixture
def store(url: str) -> Store:
    return Store(url)


class Flaky(MemoryFileSystem):
    """Memory whose every access asks ``decide`` first, which may raise."""

    protocol = "flaky"
    cachable = False
    decide: Callable[[str, str], None] = staticmethod(lambda what, path: None)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("flaky://", "memory://")))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        type(self).decide("write", str(path))
        super().pipe_file(path, value, mode=mode, **kwargs)

    def cat_file(self, path: str, *args: object, **kwargs: object) -> bytes:
        type(self).decide("read", str(path))
        return super().cat_file(path, *args, **kwargs)


@pytest.fixture
def flaky() -> Iterator[type[Flaky]]:
    """A file system ``flaky://`` that a test can let fail."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    yield Flaky
    Flaky.decide = staticmethod(lambda what, path: None)

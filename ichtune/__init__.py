"""ichtune: find, train and combine models that detect acute intracranial hemorrhage on head CT."""

from typing import TYPE_CHECKING, Any

from ichtune.version import __version__

if TYPE_CHECKING:
    from ichtune.workspace import Workspace

__all__ = ["Workspace", "__version__"]


def __getattr__(name: str) -> Any:
    """Import ``Workspace`` on first use, so that ``ichtune --help`` does not pay for pandas."""
    if name == "Workspace":
        from ichtune.workspace import Workspace

        return Workspace
    raise AttributeError(f"module 'ichtune' has no attribute {name!r}")

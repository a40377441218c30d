"""``torch.compile`` where it works, and the network as it is where it does not, with the reason.

Dimension key: B batch, C channels, H height, W width, K outputs.
"""

import torch

from ichtune.models.network import Network


class CompiledNetwork:
    """Calls a network, compiled if asked, until whoever calls it gives that up.

    Args:
        network: what is called.
        wanted: whether to compile it.
        notes: receives one line that says why it runs as it is.
    """

    def __init__(self, network: Network, wanted: bool, notes: list[str]) -> None:
        self._network, self._notes = network, notes
        self._compiled = torch.compile(network) if wanted else None

    @property
    def is_compiled(self) -> bool:
        """Whether the compiled network is what is called."""
        return self._compiled is not None

    def __call__(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K)."""
        called = self._network if self._compiled is None else self._compiled
        logits_BK: torch.Tensor = called(x_BCHW)
        return logits_BK

    def give_up(self, error: Exception) -> None:
        """Call the plain network from now on, and note the error that is why."""
        self._compiled = None
        first = (str(error).strip().splitlines() or [""])[0]
        self._notes.append(f"not compiled: {type(error).__name__}: {first}")

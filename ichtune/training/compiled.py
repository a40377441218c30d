"""``torch.compile`` where it works, and the network as it is where it does not, with the reason.

Dimension key: B batch, C channels, H height, W width, K outputs.
"""

import torch

from ichtune.models.network import Network


class CompiledNetwork:
    """Calls a network, compiled if asked; the first failure puts the plain network in its place for good.

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
        if self._compiled is not None:
            state = torch.get_rng_state()
            try:
                compiled_BK: torch.Tensor = self._compiled(x_BCHW)
                return compiled_BK
            except Exception as error:  # noqa: BLE001  (compilers fail in every way; the plain network is right anyway)
                self._compiled = None
                first = (str(error).strip().splitlines() or [""])[0]
                self._notes.append(f"not compiled: {type(error).__name__}: {first}")
                torch.set_rng_state(state)
        logits_BK: torch.Tensor = self._network(x_BCHW)
        return logits_BK

"""What the networks of all sequence models share: a way in, a body along the series, and a way out that starts at zero.

Dimension key: B series, T slices of the longest, F inputs, D embedding components, H hidden, L labels.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ichtune.labels import N_LABELS


class SequenceBody(nn.Module):
    """Maps what is known of each slice (B, T, H) to (B, T, H), looking along the series.

    What every body keeps: nothing in the padding changes what comes out for a slice, and neither does its amount.
    """

    def forward(self, h_BTH: torch.Tensor, mask_BT: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Return what is known of each slice after looking along the series; anything in the padding.

        Args:
            h_BTH: float32; anything in the padding.
            mask_BT: whether a place holds a slice.
            lengths_B: slices of each series, int64 on the CPU, at least 1.
        """
        raise NotImplementedError


class SequenceNetwork(nn.Module):
    """Adds to the log odds of each slice what its series says; before it has learnt anything that is nothing.

    Args:
        n_inputs: F, standardised numbers of each slice.
        n_components: D; 0 for no embeddings.
        hidden: H.
        dropout: of the embeddings and of what goes into the body.
        body: looks along the series.
    """

    def __init__(self, n_inputs: int, n_components: int, hidden: int, dropout: float, body: SequenceBody) -> None:
        super().__init__()
        self.enter = nn.Linear(n_inputs, hidden)
        self.enter_embedding = nn.Linear(n_components, hidden, bias=False) if n_components else None
        self.dropout = nn.Dropout(dropout)
        self.body = body
        self.norm = nn.LayerNorm(hidden)
        self.leave = nn.Linear(hidden, N_LABELS)
        self.straight = nn.Linear(n_inputs, N_LABELS, bias=False)
        for parameter in (*self.leave.parameters(), *self.straight.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x_BTF: torch.Tensor, e_BTD: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Return what to add to the log odds, float32 (B, T, L); anything in the padding."""
        mask_BT = torch.arange(x_BTF.shape[1], device=x_BTF.device) < lengths_B.to(x_BTF.device)[:, None]
        h_BTH = self.enter(x_BTF)
        if self.enter_embedding is not None:
            h_BTH = h_BTH + self.enter_embedding(self.dropout(e_BTD))
        h_BTH = self.body(self.dropout(h_BTH), mask_BT, lengths_B)
        added_BTL: torch.Tensor = self.leave(self.norm(h_BTH)) + self.straight(x_BTF)
        return added_BTL


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return an optimizer's groups: matrices decay; biases, norms and the like do not."""
    decays = {name: p.ndim > 1 and not name.endswith("bias") for name, p in network.named_parameters()}
    groups = ((True, weight_decay), (False, 0.0))
    return [
        {"params": [p for name, p in network.named_parameters() if decays[name] is decay], "weight_decay": strength}
        for decay, strength in groups
    ]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread inside, and on as many as before afterwards.

    The networks are small: the work of a step is done before several threads have met. Where others use the cores too,
    threads that wait for each other took 31 s for an epoch that one thread does in 0.7 s.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Draw everything random inside from the seed, and leave torch's generators as they were."""
    on_gpu = device.type == "cuda"
    index = device.index if device.index is not None or not on_gpu else torch.cuda.current_device()
    with torch.random.fork_rng(devices=[index] if on_gpu else [], device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield

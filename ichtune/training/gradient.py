"""The gradient of one batch, in as little memory as there is.

Dimension key: B batch, C channels, H height, W width, K targets.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ichtune.errors import NothingUsableError
from ichtune.models.network import Network
from ichtune.recipe import Recipe
from ichtune.training.compiled import CompiledNetwork
from ichtune.training.devices import autocast
from ichtune.training.losses import find_loss, reduce_loss
from ichtune.training.memory import first_line, free_memory, is_out_of_memory
from ichtune.training.recompute import blocks_of, recomputed

#: How the note begins that says what was done where memory ran out.
_SHORT = "out of memory"


class BatchGradient:
    """Puts a batch's gradient into a network's parameters; where memory runs out, the same step is done again in less.

    A network to which it matters how a batch is cut (batch norm, dropout) first computes its activations twice instead
    of keeping them: that takes a third more time and changes no bit on a CPU. If it is not enough, and at once in other
    networks, each part of the batch (the recipe's ``accumulation``) passes in 2, 4, 8... pieces whose gradients are
    added up. Without batch norm and dropout that changes the rounding of sums and nothing else. Batch norm normalises
    each piece by the piece's own mean and variance; its running statistics move once a part, towards the mean over the
    pieces. Dropout draws other numbers. Notes say so. What was found to fit stays for the rest of the run.

    Args:
        network: the network that is trained, on its device to stay.
        recipe: of which loss, accumulation and compile count.
        notes: receives what a user should know of all this.
    """

    def __init__(self, network: Network, recipe: Recipe, notes: list[str]) -> None:
        self._network, self._recipe, self._notes = network, recipe, notes
        self._loss = find_loss(recipe.loss)
        self._forward = CompiledNetwork(network, recipe.compile, notes)
        self._norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._has_dropout = any(_drops(module) for module in network.modules())
        self._blocks = blocks_of(network) if self._norms or self._has_dropout else []
        self._before, self._before_piece = _Buffers(network.body), _Buffers(network.body)
        self._recomputes, self._n_pieces = False, 1

    @property
    def is_short_of_memory(self) -> bool:
        """Whether a batch did not fit as the recipe says that it passes."""
        return self._recomputes or self._n_pieces > 1

    def __call__(self, x_BCHW: torch.Tensor, y_BK: torch.Tensor, weight_BK: torch.Tensor, seed: int) -> torch.Tensor:
        """Set the parameters' gradients and return the batch's loss, a scalar on the device.

        Args:
            x_BCHW: the network's input; may hang on the graph of learnable windows.
            y_BK: targets.
            weight_BK: what each of them counts.
            seed: of dropout and the like.

        Raises:
            NothingUsableError: the smallest pieces do not fit.
        """
        self._before.keep()
        while True:
            torch.manual_seed(seed)
            self._network.zero_grad(set_to_none=True)
            try:
                loss = self._pass(x_BCHW, y_BK, weight_BK)
            except Exception as error:  # compilers fail in every way, forward or backward
                if not self._can_take_less(error, len(x_BCHW)):
                    raise
            else:
                self._tell()
                return loss
            # here the error is gone, and with it the frames that held on to activations
            self._before.put_back()
            free_memory(x_BCHW.device)

    def _pass(self, x_BCHW: torch.Tensor, y_BK: torch.Tensor, weight_BK: torch.Tensor) -> torch.Tensor:
        """Pass a batch in ``accumulation`` parts and add up their gradients; returns the whole batch's loss."""
        n_slices, total = len(x_BCHW), torch.zeros((), device=x_BCHW.device)
        # parts end at a leaf, so that the graph of learnable windows before it is walked once, after all of them
        leaf_BCHW = x_BCHW.detach().requires_grad_(x_BCHW.requires_grad)
        parts = [t.tensor_split(self._n_parts(n_slices)) for t in (leaf_BCHW, y_BK, weight_BK)]
        for x, y, weight in zip(*parts, strict=True):
            total += self._pass_part(x, y, weight, n_slices)
        if x_BCHW.requires_grad:
            x_BCHW.backward(leaf_BCHW.grad, retain_graph=True)  # another try would walk it again
        return total

    def _n_parts(self, n_slices: int) -> int:
        return min(self._recipe.accumulation, max(1, n_slices // 2))  # batch norm needs two

    def _pass_part(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, n_slices: int) -> torch.Tensor:
        """Pass a part of a batch of ``n_slices`` in pieces that leave buffers as the part in one piece would."""
        n_pieces = self._pieces(len(x), self._n_pieces)
        if n_pieces == 1:
            return self._pass_piece(x, y, weight, n_slices)
        total, means = torch.zeros((), device=x.device), _RunningMeans(self._norms)
        self._before_piece.keep()
        for some_x, some_y, some_weight in zip(*(t.tensor_split(n_pieces) for t in (x, y, weight)), strict=True):
            self._before_piece.put_back()
            total += self._pass_piece(some_x, some_y, some_weight, n_slices)
            means.add(len(some_x) / len(x))
        means.put()
        return total

    def _pieces(self, n_slices: int, wanted: int) -> int:
        """Pieces that so many slices can be cut into: batch norm needs two slices in each."""
        return min(wanted, max(1, n_slices // (2 if self._norms else 1)))

    def _pass_piece(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, n_slices: int) -> torch.Tensor:
        with recomputed(self._blocks if self._recomputes else []), autocast(x.device):
            logits_BK = self._network(x) if self._recomputes else self._forward(x)
        loss = reduce_loss(self._loss(logits_BK, y, self._recipe), weight) * (len(x) / n_slices)
        loss.backward()
        return loss.detach()

    def _can_take_less(self, error: Exception, n_slices: int) -> bool:
        """Decide how a step that failed is tried again; returns whether another try can mend it."""
        if is_out_of_memory(error):
            self._shrink(error, n_slices)
        elif self._recomputes:  # a network that cannot be computed again
            self._recomputes, self._blocks, self._n_pieces = False, [], max(2, self._n_pieces)
        elif self._forward.is_compiled:
            self._forward.give_up(error)
        else:
            return False
        return True

    def _shrink(self, error: Exception, n_slices: int) -> None:
        largest = -(-n_slices // self._n_parts(n_slices))
        n_now = self._pieces(largest, self._n_pieces)
        if self._blocks and not self._recomputes:
            self._recomputes = True
        elif self._pieces(largest, 2 * n_now) > n_now:
            self._n_pieces = 2 * n_now
        else:
            raise NothingUsableError(
                f"{_SHORT} even with {-(-largest // n_now)} slices at a time: {first_line(error)}. Lower image_px, "
                f"take a smaller network, or give each trial more memory"
            ) from error

    def _tell(self) -> None:
        """Note how memory is saved: once, and again where the notes were put back to what they were."""
        if self.is_short_of_memory and (note := self._described()) not in self._notes:
            self._notes[:] = [other for other in self._notes if not other.startswith(f"{_SHORT}:")] + [note]

    def _described(self) -> str:
        plainly = ", by the network uncompiled" if self._forward.is_compiled else ""
        done = [f"activations are computed twice instead of kept{plainly}"] if self._recomputes else []
        effect = "the result is the same" + (" but for rounding" if plainly else "")
        if self._n_pieces > 1:
            done.append(f"each batch passes in {self._n_pieces} times as many parts and is still one step")
            effect = "the result is the same but for rounding"
            if self._norms:
                effect = "batch norm sees each part by itself, so the result differs from that of whole batches"
            elif self._has_dropout:
                effect += " and dropout's draws"
        return f"{_SHORT}: {', '.join(done)}; {effect}"


def _drops(module: nn.Module) -> bool:
    """Return whether a module draws what it leaves out: torch's dropouts have a ``p``, timm's a ``drop_prob``."""
    return "drop" in type(module).__name__.lower() and bool(getattr(module, "p", getattr(module, "drop_prob", 0.0)))


class _Buffers:
    """A copy of a module's buffers, to put them back: a pass that fails may have moved running statistics."""

    def __init__(self, module: nn.Module) -> None:
        # .data: a graph that lives may hold on to some of them, and would see a change to them as an error
        by_type: dict[torch.dtype, list[torch.Tensor]] = {}
        for buffer in module.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer.data)
        self._groups = [(group, [torch.empty_like(b) for b in group]) for group in by_type.values()]

    def keep(self) -> None:
        """Copy the module's buffers."""
        for group, kept in self._groups:
            torch._foreach_copy_(kept, group)

    def put_back(self) -> None:
        """Let the module's buffers be what they were when they were kept."""
        for group, kept in self._groups:
            torch._foreach_copy_(group, kept)


class _RunningMeans:
    """Means over pieces of the statistics that batch norms keep, each piece having started from the same ones."""

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        kept = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var)]
        self._statistics = [tensor.data for tensor in kept if isinstance(tensor, torch.Tensor)]
        self._means = [torch.zeros_like(tensor) for tensor in self._statistics]

    def add(self, share: float) -> None:
        """Take in what a piece of that share left."""
        if self._means:
            torch._foreach_add_(self._means, self._statistics, alpha=share)

    def put(self) -> None:
        """Let the norms hold the means."""
        if self._means:
            torch._foreach_copy_(self._statistics, self._means)

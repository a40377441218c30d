import pytest
import torch

from ichtune.second_level.sequence_network import (
    SequenceBody,
    SequenceNetwork,
    one_thread,
    own_randomness,
    parameter_groups,
)

CPU = torch.device("cpu")


class Untouched(SequenceBody):
    def forward(self, h_BTH: torch.Tensor, mask_BT: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        self.mask_BT = mask_BT
        return h_BTH


def network(n_components: int = 0, dropout: float = 0.0) -> SequenceNetwork:
    return SequenceNetwork(5, n_components, 8, dropout, Untouched())


def test_an_untrained_network_adds_nothing() -> None:
    added = network(3)(torch.randn(2, 4, 5), torch.randn(2, 4, 3), torch.tensor([4, 2]))
    assert added.shape == (2, 4, 6)
    assert (added == 0).all()


def test_the_body_is_told_where_slices_are() -> None:
    one = network()
    one(torch.zeros(2, 3, 5), torch.zeros(2, 3, 0), torch.tensor([1, 3]))
    assert one.body.mask_BT.tolist() == [[True, False, False], [True, True, True]]


def test_embeddings_reach_the_output_and_are_dropped_out_in_training() -> None:
    one = network(3, dropout=0.5)
    torch.nn.init.ones_(one.leave.weight)
    torch.nn.init.normal_(one.norm.weight)
    x, lengths = torch.zeros(1, 40, 5), torch.tensor([40])
    one.eval()
    first = one(x, torch.randn(1, 40, 3), lengths)
    assert not torch.allclose(first, one(x, torch.randn(1, 40, 3), lengths))
    one.train()
    e = torch.randn(1, 40, 3)
    assert not torch.equal(one(x, e, lengths), one(x, e, lengths))


def test_matrices_decay_and_nothing_else() -> None:
    one = network(3)
    decaying, still = parameter_groups(one, 0.1)
    assert decaying["weight_decay"] == 0.1
    assert still["weight_decay"] == 0.0
    assert all(p.ndim == 2 for p in decaying["params"])
    assert all(p.ndim == 1 for p in still["params"])
    assert len(decaying["params"]) + len(still["params"]) == len(list(one.parameters()))


def test_one_thread_is_held_to_inside_only() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_own_randomness_is_seeded_and_leaves_the_rest_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with own_randomness(5, CPU):
        first = torch.randn(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(9)
    with own_randomness(5, CPU):
        assert torch.equal(torch.randn(4), first)
    with own_randomness(6, CPU):
        assert not torch.equal(torch.randn(4), first)


def test_a_body_must_be_written() -> None:
    with pytest.raises(NotImplementedError):
        SequenceBody()(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), torch.tensor([1]))

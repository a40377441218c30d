"""ARCHITECTURES: names of our own that hide none of timm's."""

import timm

from ichtune.models.architectures import ARCHITECTURES


def n_weights(name: str) -> int:
    return sum(p.numel() for p in ARCHITECTURES[name](3, 6, 0.0).parameters())


def test_no_name_of_ours_hides_one_of_timm() -> None:
    assert not set(ARCHITECTURES) & set(timm.list_models())


def test_the_larger_of_two_is_larger() -> None:
    assert n_weights("small_convnet") > 3 * n_weights("tiny_convnet")


def test_each_name_of_the_seed_s_network_is_another_network() -> None:
    names = ("xresnet50", "xresnet50_attention", "xresnet50_attention_sym")
    plain, attending, symmetric = (set(ARCHITECTURES[name](3, 0, 0.0).state_dict()) for name in names)
    assert plain < attending
    # A weight that is made symmetric and then normed has two parametrisations, and the second holds the vectors.
    assert any(name.endswith("weight.0._u") for name in attending)
    assert any(name.endswith("weight.1._u") for name in symmetric)

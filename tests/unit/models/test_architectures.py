"""ARCHITECTURES: names of our own that hide none of timm's."""

import timm

from ichtune.models.architectures import ARCHITECTURES


def test_no_name_of_ours_hides_one_of_timm() -> None:
    assert not set(ARCHITECTURES) & set(timm.list_models())


def test_the_larger_of_two_is_larger() -> None:
    def n_weights(name: str) -> int:
        return sum(p.numel() for p in ARCHITECTURES[name](3, 6, 0.0).parameters())

    assert n_weights("small_convnet") > 3 * n_weights("tiny_convnet")

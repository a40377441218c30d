import pytest

from ichtune.ensemble.blenders.convex import Convex
from ichtune.ensemble.blenders.table import BLENDERS, blender_parameters, create_blender
from ichtune.errors import ConfigError


def test_a_blender_is_made_with_its_settings():
    blender = create_blender("convex", {"space": "probability", "shrinkage": 0.5})
    assert isinstance(blender, Convex)
    assert (blender.space, blender.weights, blender.shrinkage) == ("probability", "shared", 0.5)


def test_learned_state_is_no_setting():
    assert blender_parameters("convex") == ("space", "weights", "shrinkage", "towards_shared")
    assert blender_parameters("equal_mean") == ()


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown blender 'equalmean'. Did you mean 'equal_mean"):
        create_blender("equalmean")
    with pytest.raises(ConfigError, match=r"no parameter 'spaces'. Did you mean 'space'"):
        create_blender("convex", {"spaces": "logit"})
    with pytest.raises(ConfigError, match="has no parameters"):
        create_blender("equal_mean", {"space": "logit"})


def test_every_name_is_a_word():
    assert all(name.isidentifier() and name == name.lower() for name in BLENDERS)

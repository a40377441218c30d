"""The search-space grammar: YAML in, parameters and recipes out; knows neither Ray nor Optuna."""

from ichtune.space.constraints import Constraint
from ichtune.space.corners import check_corners, combinations
from ichtune.space.counting import SpaceSize, space_size
from ichtune.space.domains import Chooser
from ichtune.space.model import Parameter, Space
from ichtune.space.proposals import Proposal, describe, fixed_values, propose
from ichtune.space.reading import read_space
from ichtune.space.sampling import RandomChooser, random_proposals
from ichtune.space.settings import (
    FIDELITIES,
    JUDGES,
    EarlyStop,
    FoldSettings,
    MetricSettings,
    Resources,
    SearchSettings,
    TrainSettings,
)

__all__ = [
    "FIDELITIES",
    "JUDGES",
    "Chooser",
    "Constraint",
    "EarlyStop",
    "FoldSettings",
    "MetricSettings",
    "Parameter",
    "Proposal",
    "RandomChooser",
    "Resources",
    "SearchSettings",
    "Space",
    "SpaceSize",
    "TrainSettings",
    "check_corners",
    "combinations",
    "describe",
    "fixed_values",
    "propose",
    "random_proposals",
    "read_space",
    "space_size",
]

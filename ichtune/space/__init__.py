"""The search-space grammar: YAML in, parameters and recipes out; knows neither Ray nor Optuna."""

from ichtune.space.corners import check_corners, combinations
from ichtune.space.domains import Chooser
from ichtune.space.model import Parameter, Space
from ichtune.space.proposals import Proposal, describe, fixed_values, n_configurations, propose
from ichtune.space.reading import read_space
from ichtune.space.settings import (
    EarlyStop,
    FoldSettings,
    MetricSettings,
    Resources,
    SearchSettings,
    TrainSettings,
)

__all__ = [
    "Chooser",
    "EarlyStop",
    "FoldSettings",
    "MetricSettings",
    "Parameter",
    "Proposal",
    "Resources",
    "SearchSettings",
    "Space",
    "TrainSettings",
    "check_corners",
    "combinations",
    "describe",
    "fixed_values",
    "n_configurations",
    "propose",
    "read_space",
]

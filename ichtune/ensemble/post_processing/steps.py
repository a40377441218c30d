"""The table of post-processing steps: being listed here is being offered, and being tested."""

from ichtune.ensemble.post_processing.any_at_least_max import AnyAtLeastMax
from ichtune.ensemble.post_processing.any_at_most_sum import AnyAtMostSum
from ichtune.ensemble.post_processing.any_noisy_or import AnyNoisyOr
from ichtune.ensemble.post_processing.base import Step
from ichtune.ensemble.post_processing.clip import Clip
from ichtune.ensemble.post_processing.isotonic import Isotonic
from ichtune.ensemble.post_processing.platt import Platt
from ichtune.ensemble.post_processing.prior_shift import PriorShift
from ichtune.ensemble.post_processing.temperature import Temperature

#: In the order in which they are tried: calibrations from the stiffest on, then ``any`` against its parts.
STEPS: dict[str, type[Step]] = {
    "temperature": Temperature,
    "platt": Platt,
    "isotonic": Isotonic,
    "any_noisy_or": AnyNoisyOr,
    "any_at_least_max": AnyAtLeastMax,
    "any_at_most_sum": AnyAtMostSum,
    "clip": Clip,
    "prior_shift": PriorShift,
}
#: What is tried unless an ensemble says otherwise: every step that acts on new slices as on the test set.
DEFAULT_STEPS = tuple(name for name, step in STEPS.items() if not step.is_transductive)

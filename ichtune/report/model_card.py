"""MODEL_CARD.md: one page that travels with a bundle and says what it is, what it learnt from and what it is not."""

from ichtune.data.phantom.folder import GENERATED_DATA
from ichtune.report.fold_ensemble import FoldEnsemble
from ichtune.version import __version__

NO_LICENCE = "None was given. Ask whoever made this bundle before using it or passing it on."
_WARNING = f"""
It is {GENERATED_DATA}, no scan of a person: what these models say of real scans means nothing.
"""


def model_card(ensemble: FoldEnsemble, licence: str) -> str:
    """Return the card as Markdown; it holds counts of the training data, and nothing else of it.

    Args:
        ensemble: what the bundle holds.
        licence: the terms of its maker; empty where none were given.
    """
    told, n_recipes, n_models = ensemble.trained_on, len(ensemble.members), len(ensemble.weights)
    data = GENERATED_DATA if told.generated else "the training data of its maker"
    members = "\n".join(f"- `{member.name}`, {len(member.folds)} fold models" for member in ensemble.members)
    if ensemble.n_left_out:
        left_out = f"Recipes of the blend left out, since their weight is zero: {ensemble.n_left_out}."
        members += f"\n\n{left_out} No prediction depends on them."
    interval = f"{told.level:.0%} interval {told.crossfit_low:.5f} to {told.crossfit_high:.5f}"
    return f"""# Model card

Fold models and their blend, which give a probability of acute intracranial hemorrhage and of each of its five subtypes
for every slice of non-contrast head CT. Made with ichtune {__version__}.

**This is not a medical device.** It has no clearance and no clinical validation. It must not be used to diagnose, to
triage or to decide on treatment.

## What it holds

{n_models} models of {n_recipes} recipes, blended by `{ensemble.blend.spec.blender}`:

{members}

## What it was trained on

{told.n_slices} labelled slices of {told.n_patients} patients: {data}. Folds are grouped by patient.
The bundle holds no image, no label, no identity and no path of that data.
{_WARNING if told.generated else ""}
## How good it is

Weighted log loss {told.crossfit_loss:.5f}, {interval} by bootstrap over patients,
cross-fitted on the slices named above, which are {data}.
On other scanners, protocols and patients it can be worse: measure it on labelled scans of your own.

## How to use it

    ichtune predict DICOM_DIR --bundle BUNDLE --out predictions.csv

## Licence

{licence.strip() or NO_LICENCE}
"""

"""MODEL_CARD.md: one page that travels with a bundle and says what it is, what it learnt from and what it is not."""

from ichtune.data.phantom.folder import GENERATED_DATA
from ichtune.ensemble.members.suspicions import FOLD
from ichtune.report.blend_account import RUNGS, BlendAccount, Suspected
from ichtune.report.fold_ensemble import AnyMember, FoldEnsemble, StackedMember
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
    told = ensemble.trained_on
    data = GENERATED_DATA if told.generated else "the training data of its maker"
    interval = f"{told.level:.0%} interval {told.crossfit_low:.5f} to {told.crossfit_high:.5f}"
    return f"""# Model card

Fold models and their blend, which give a probability of acute intracranial hemorrhage and of each of its five subtypes
for every slice of non-contrast head CT. Made with ichtune {__version__}.

**This is not a medical device.** It has no clearance and no clinical validation. It must not be used to diagnose, to
triage or to decide on treatment.

## What it holds

{_holds(ensemble)}

## What it was trained on

{told.n_slices} labelled slices of {told.n_patients} patients: {data}. Folds are grouped by patient.
The bundle holds no image, no label, no identity and no path of that data.
{_WARNING if told.generated else ""}
## How good it is

Weighted log loss {told.crossfit_loss:.5f}, {interval} by bootstrap over patients,
cross-fitted on the slices named above, which are {data}.
On other scanners, protocols and patients it can be worse: measure it on labelled scans of your own.
{_gained(ensemble.account)}{_doubts(ensemble)}
## How to use it

    ichtune predict DICOM_DIR --bundle BUNDLE --out predictions.csv

## Licence

{licence.strip() or NO_LICENCE}
"""


def _holds(ensemble: FoldEnsemble) -> str:
    n_recipes = len(ensemble.members) + len(ensemble.unweighted)
    lines = [
        f"{len(ensemble.weights)} models of {n_recipes} recipes, blended by `{ensemble.blend.spec.blender}`:",
        "",
        *(_line(member, ensemble.account) for member in ensemble.members),
        *(f"{_line(member, ensemble.account)}; for the second level alone" for member in ensemble.unweighted),
    ]
    if ensemble.stacked:
        lines += ["", "A second level learns from what networks say of a whole series, slice beside slice."]
    if ensemble.n_left_out:
        left_out = f"Recipes of the blend left out, since their weight is zero: {ensemble.n_left_out}."
        lines += ["", f"{left_out} No prediction depends on them."]
    return "\n".join(lines)


def _line(member: AnyMember, account: BlendAccount) -> str:
    level = f", second level on {len(member.members)} of these" if isinstance(member, StackedMember) else ""
    loss = account.losses.get(member.recipe_id)
    scored = "" if loss is None else f", out-of-fold loss {loss:.5f}"
    return f"- `{member.name}`{level}, {len(member.folds)} fold models{scored}"


def _gained(account: BlendAccount) -> str:
    """What each step gained, on patients that it was not fitted on."""
    lines = [
        f"- against {RUNGS[one.rung]}: {one.estimate:+.5f}, {one.low:+.5f} to {one.high:+.5f}"
        for one in account.compared
    ]
    text = "\n### What each step gained\n\n" + "\n".join(lines) + "\n" if lines else ""
    if account.steps:
        steps = [f"- {one.step}, `{one.label}`: {-one.gain:+.5f}" for one in account.steps]
        text += "\nPost-processing, in log loss of the label:\n\n" + "\n".join(steps) + "\n"
    if lines or account.steps:
        text += "\nBelow 0 is a gain; all of it on patients that were held out.\n"
    if account.optimism is not None:
        of = "" if account.n_candidates is None else f" among {account.n_candidates}"
        text += (
            f"\nThe way to blend was chosen by loss{of}: {account.optimism:.5f} of its lead is expected to "
            "be luck. The cross-fitted loss repeats this choice without the patients that it scores.\n"
        )
    return text


def _doubts(ensemble: FoldEnsemble) -> str:
    """Members that may have seen what they predict; without the slices that say so, which are private."""
    names = {member.recipe_id: member.name for member in (*ensemble.members, *ensemble.unweighted)}
    lines = [_doubt(one, names.get(one.recipe_id, one.recipe_id)) for one in ensemble.account.suspected]
    return "\n### Doubts\n\n" + "\n".join(lines) + "\n" if lines else ""


def _doubt(one: Suspected, name: str) -> str:
    what = (
        f"predicts fold {one.fold} better than an honest model would"
        if one.kind == FOLD
        else f"is sure and right about slices of {one.n_patients} patients more often than an honest model would be"
    )
    return f"- `{name}` {what}: it may have learnt from labels that it is scored on, and the loss above may be too low."

import json
from dataclasses import asdict

import pytest

from ichtune.report.blend_account import (
    AppliedStep,
    BlendAccount,
    Compared,
    Suspected,
    account_of,
)

ABOUT = {
    "differences": {
        "equal_mean": {"estimate": -0.001, "low": -0.002, "high": 0.0},
        "prior": {"estimate": -0.1, "low": -0.2, "high": -0.05},
        "another": {"estimate": 0.0, "low": 0.0, "high": 0.0},
    },
    "post_processing": [
        {"step": "platt", "label": "any", "gain": 0.01, "standard_error": 0.001, "n_patients": 30, "applied": True},
        {"step": "platt", "label": "subdural", "gain": 0.0, "standard_error": 0.1, "n_patients": 30, "applied": False},
    ],
    "suspicions": [
        {"recipe_id": "a", "kind": "rows", "log_odds": 30.0, "n_patients": 4, "fold": None, "image_ids": ["ID_1"]}
    ],
    "optimism": {"best_single": {"estimate": 0.1}, "blender": {"estimate": 0.0004, "n_candidates": 7, "loss": 0.1}},
}
LADDER = [
    {"name": "prior", "oof_loss": 0.3},
    {"name": "single:net", "recipe_id": "a", "oof_loss": 0.2},
    {"name": "best_single", "recipe_id": "a", "oof_loss": 0.2},
]


def test_it_tells_what_each_step_gained_and_what_is_suspected():
    account = account_of(ABOUT, LADDER)
    assert account == BlendAccount(
        losses={"a": 0.2},
        compared=(Compared("prior", -0.1, -0.2, -0.05), Compared("equal_mean", -0.001, -0.002, 0.0)),
        steps=(AppliedStep("platt", "any", 0.01),),
        suspected=(Suspected("a", "rows", 4, None),),
        optimism=0.0004,
        n_candidates=7,
    )
    plain = json.loads(json.dumps(asdict(account)))
    assert BlendAccount.from_plain(plain) == account
    assert "ID_1" not in str(plain), "slices are nobody else's business"


def test_what_a_blend_did_not_write_is_not_told():
    assert account_of({}, []) == BlendAccount()
    assert BlendAccount.from_plain(asdict(BlendAccount())) == BlendAccount()


@pytest.mark.parametrize("change", [{"losses": None}, {"steps": [{"step": "platt"}]}, {"compared": 3}])
def test_something_else_is_refused(change):
    with pytest.raises((LookupError, TypeError, ValueError)):
        BlendAccount.from_plain({**asdict(BlendAccount()), **change})

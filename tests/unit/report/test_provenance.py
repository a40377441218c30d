import json

from ichtune.report.provenance import PACKAGES, collect_made
from ichtune.version import __version__


def test_versions_ids_and_seeds(full_workspace):
    made = collect_made(full_workspace.open())
    assert made.versions["ichtune"] == __version__
    assert set(PACKAGES) < set(made.versions)
    assert made.ids["HU cache"] == "cache1"
    assert made.ids["fold plan"] == full_workspace.plan.plan_hash
    assert made.ids["cached size"] == "8 px"
    assert made.ids["seed of search windows"] == "11"
    assert made.ids["recipes trained on every fold"] == "r0, r1, r2"
    assert made.ids["label CSV, SHA-256"] == "ab" * 32
    assert json.loads(made.spaces["windows"])["name"] == "windows"


def test_what_is_unknown_is_left_out(make_blend_workspace):
    made = collect_made(make_blend_workspace(noises=()).open())
    assert "label CSV" not in made.ids
    assert "recipes trained on every fold" not in made.ids
    assert made.ids["cached size"] == "native"
    assert made.spaces == {}


def test_a_package_that_is_absent_is_said(full_workspace, monkeypatch):
    monkeypatch.setattr("ichtune.report.provenance.PACKAGES", ("no_such_package_at_all",))
    made = collect_made(full_workspace.open())
    assert made.versions["no_such_package_at_all"] == "not installed"

import os
from pathlib import Path

import pytest

from ichtune.errors import ConfigError, DataError
from ichtune.locks import only_one
from ichtune.recipe import Recipe
from ichtune.search import mirror
from ichtune.search.ledger import FINISHED, Ledger, TrialRecord
from ichtune.search.trial_table import all_records, holder_path, is_running, ledger_path, lock_path
from ichtune.second_level_recipe import SecondLevelRecipe
from ichtune.store.lease import held
from ichtune.store.store import Store
from ichtune.tables import write_json

RECIPE = Recipe(architecture="tiny_convnet", image_px=32, epochs=1)


@pytest.fixture
def there(fake_workspace):
    return fake_workspace("there")


@pytest.fixture
def url(there, tmp_path, monkeypatch):
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "mirror"))
    mirror.node_workspace.cache_clear()
    return f"file://{there.layout.root}"


def another_machine(monkeypatch, tmp_path: Path) -> None:
    """A machine with an empty disk."""
    monkeypatch.setenv("ICHTUNE_MIRROR", str(tmp_path / "another" / "mirror"))
    mirror.node_workspace.cache_clear()


def search_at(url: str, name: str = "tiny", n_trials: int = 1) -> Store:
    """Leave a search of some finished trials at a URL, as its writer would."""
    store = Store(url)
    journal = mirror.journal_of(store, name)
    journal.begin(1)
    ledger = Ledger(Path(os.environ["ICHTUNE_MIRROR"]) / f"written-{name}" / name / "ledger.jsonl", journal.append)
    ledger.open({"space_id": "s", "folds": [0]})
    for trial in range(n_trials):
        ledger.start(TrialRecord(trial, {}, {}, RECIPE))
        ledger.end(trial, FINISHED)
    return store


def test_a_plain_path_is_read_where_it_lies(there, url, tmp_path) -> None:
    workspace = mirror.open_workspace(there.layout.root)
    mirror.fetch_pixels(workspace)
    mirror.fetch_runs(workspace)
    mirror.fetch_results(workspace)

    assert workspace.origin == ""
    assert workspace.layout.root == there.layout.root
    assert mirror.push(workspace, [workspace.layout.slices]) == []
    assert not (tmp_path / "mirror").exists()
    assert mirror.node_workspace(str(there.layout.root), None, frozenset()).layout == there.layout


def test_a_workspace_at_a_url_is_read_through_its_mirror(there, url) -> None:
    workspace = mirror.open_workspace(url + "/")

    assert workspace.origin == url
    assert workspace.slices.equals(there.slices)
    assert workspace.fold_plan.plan_hash == there.fold_plan.plan_hash
    with pytest.raises(DataError):
        _ = workspace.hu_cache  # pixels come when they are asked for
    mirror.fetch_pixels(workspace, [(32, "none")])
    assert (workspace.hu_cache.read(0) == there.hu_cache.read(0)).all()


def test_the_mirror_follows_the_prepared_data(there, url) -> None:
    mirror.open_workspace(url)
    write_json({**there.about, "size_px": 31}, there.layout.workspace_json)
    there.layout.sample_submission.write_text("ID,Label\n")

    workspace = mirror.open_workspace(url)

    assert workspace.about["size_px"] == 31
    assert workspace.layout.sample_submission.read_text() == "ID,Label\n"
    there.layout.sample_submission.unlink()
    assert not mirror.open_workspace(url).layout.sample_submission.exists()


def test_every_node_has_the_same_mirror_of_a_url_and_another_of_another(url, tmp_path, monkeypatch) -> None:
    assert mirror.mirror_root(url) == mirror.mirror_root(url + "/")
    assert mirror.mirror_root(url) != mirror.mirror_root(url + "2")
    assert mirror.mirror_root(url, "stage").parent == Path("stage")
    monkeypatch.delenv("ICHTUNE_MIRROR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert mirror.mirror_root(url).parent == tmp_path / "ichtune" / "mirror"


def test_ledgers_and_the_table_of_trials_come_from_the_journals(url, tmp_path, monkeypatch) -> None:
    search_at(url, "one", 2)
    search_at(url, "two", 1)
    another_machine(monkeypatch, tmp_path)

    workspace = mirror.open_workspace(url)

    assert {name: len(records) for name, records in all_records(workspace.layout).items()} == {"one": 2, "two": 1}
    assert len(workspace.trials) == 3


def test_a_search_that_is_gone_at_the_url_is_gone_here(url) -> None:
    store = search_at(url)
    layout = mirror.open_workspace(url).layout
    assert layout.trials.is_file()
    store.remove([f"searches/tiny/{name}" for name in store.files("searches/tiny")])

    assert not ledger_path(mirror.open_workspace(url).layout, "tiny").exists()
    assert not layout.trials.exists()


def test_the_ledger_of_a_search_that_runs_here_is_left_to_it(url) -> None:
    search_at(url)
    layout = mirror.open_workspace(url).layout
    ledger_path(layout, "tiny").write_text("what the search has written by now\n")

    with only_one(lock_path(layout, "tiny"), "busy"), pytest.raises(DataError):  # no table can be made of this
        mirror.open_workspace(url)
    assert ledger_path(layout, "tiny").read_text() == "what the search has written by now\n"


def test_a_search_that_runs_elsewhere_is_seen_to_run(url, monkeypatch) -> None:
    store = search_at(url)
    monkeypatch.setattr("ichtune.store.lease._machine", lambda: "elsewhere")
    with held(store, mirror.lease_folder("tiny"), "busy"):
        layout = mirror.open_workspace(url).layout
        assert is_running(layout, "tiny")
    layout = mirror.open_workspace(url).layout
    assert not is_running(layout, "tiny")
    holder_path(layout, "tiny").write_text("{torn")
    assert not is_running(layout, "tiny")


def test_runs_and_results_are_fetched_as_far_as_they_are_wanted(there, url) -> None:
    other = Recipe(architecture="tiny_convnet", image_px=32, epochs=2)
    learner = Recipe(architecture="tiny_convnet", image_px=32, epochs=3, warm_start=RECIPE.recipe_id)
    for recipe in (RECIPE, other):
        fold = there.layout.runs / recipe.recipe_id / "fold_0"
        fold.mkdir(parents=True)
        for name in ("weights.safetensors", "resume.safetensors", "run.json", "oof.parquet", "oof_embeddings.parquet"):
            (fold / name).write_text("1")
    (there.layout.blends / "b").mkdir(parents=True)
    (there.layout.blends / "b" / "blend.json").write_text("{}")
    there.layout.ladder.write_text("[]")
    workspace = mirror.open_workspace(url)
    mirror.fetch_runs(workspace)
    mirror.fetch_results(workspace)

    def files(recipe: Recipe) -> list[str]:
        folder = workspace.layout.runs / recipe.recipe_id / "fold_0"
        return sorted(path.name for path in folder.glob("[!.]*"))

    assert files(RECIPE) == files(other) == ["oof.parquet", "run.json"]
    assert workspace.layout.ladder.read_text() == "[]"
    assert (workspace.layout.blends / "b" / "blend.json").is_file()
    mirror.fetch_runs(workspace, [learner])
    assert files(RECIPE) == ["oof.parquet", "oof_embeddings.parquet", "run.json", "weights.safetensors"]
    assert files(other) == ["oof.parquet", "run.json"]
    mirror.fetch_sources(workspace, Recipe(pseudo_labels=other.recipe_id), 0)
    assert "weights.safetensors" in files(other)
    assert mirror.sources_of(Recipe(warm_start="some/weights.safetensors")) == []


def test_of_the_runs_that_a_second_level_learns_from_predictions_are_fetched(there, url) -> None:
    member, own = "a" * 12, SecondLevelRecipe(members=("a" * 12,), embeddings=4)
    plain = SecondLevelRecipe(members=(member,))
    for recipe_id in (member, own.recipe_id):
        fold = there.layout.runs / recipe_id / "fold_1"
        fold.mkdir(parents=True)
        for path in (fold.parent / "oof.parquet", fold.parent / "recipe.json", fold / "oof_embeddings.parquet"):
            path.write_text("1")
        (fold / "weights.safetensors").write_text("large")
    workspace = mirror.open_workspace(url)

    def files(recipe_id: str) -> list[str]:
        found = (workspace.layout.runs / recipe_id).rglob("[!.]*")
        return sorted(path.name for path in found if path.is_file())

    mirror.fetch_sources(workspace, plain, 0)
    assert files(member) == ["oof.parquet", "recipe.json"]
    mirror.fetch_runs(workspace, [own])
    assert files(member) == ["oof.parquet", "oof_embeddings.parquet", "recipe.json"]
    assert "weights.safetensors" in files(own.recipe_id)
    assert mirror.sources_of(SecondLevelRecipe()) == []


def test_runs_are_fetched_as_the_most_demanding_recipe_wants_them(there, url) -> None:
    member, own = "a" * 12, SecondLevelRecipe(members=("a" * 12,), embeddings=4)
    path = there.layout.runs / member / "fold_1" / "oof_embeddings.parquet"
    path.parent.mkdir(parents=True)
    path.write_text("1")
    workspace = mirror.open_workspace(url)
    mirror.fetch_runs(workspace, [own, SecondLevelRecipe(members=(member,))])
    assert (workspace.layout.runs / member / "fold_1" / path.name).is_file()


def test_what_is_pushed_is_what_was_named_and_no_secret(there, url) -> None:
    workspace = mirror.open_workspace(url)
    run = workspace.layout.runs / "r"
    run.mkdir(parents=True)
    (run / "oof.parquet").write_text("1")
    workspace.layout.ladder.write_text("[]")
    workspace.layout.searches.mkdir(exist_ok=True)
    (workspace.layout.searches / "ray_token").write_text("secret")

    pushed = mirror.push(workspace, [run, workspace.layout.ladder, workspace.layout.report])

    assert sorted(pushed) == [f"{url}/ladder.json", f"{url}/runs/r/oof.parquet"]
    assert mirror.push(workspace, [run, workspace.layout.ladder]) == []
    assert (there.layout.runs / "r" / "oof.parquet").read_text() == "1"
    assert not any(path.name == "ray_token" for path in there.layout.root.rglob("*"))


def test_a_node_fetches_the_pixels_that_its_recipes_read(there, url, tmp_path, monkeypatch) -> None:
    inputs = frozenset({(32, "none")})

    node = mirror.node_workspace(url, None, inputs)
    assert (node.cache_for(32).read(0) == there.hu_cache.read(0)).all()
    assert mirror.node_workspace(url, None, inputs) is node
    staged = mirror.node_workspace(str(there.layout.root), str(tmp_path / "disk"), inputs)

    assert staged.layout.root.is_relative_to(tmp_path / "disk")
    assert (staged.cache_for(32).read(0) == there.hu_cache.read(0)).all()


def test_errors_are_those_of_a_workspace(url, tmp_path) -> None:
    with pytest.raises(DataError, match="holds no prepared data"):
        mirror.open_workspace(f"file://{tmp_path}/nothing")
    with pytest.raises(ConfigError, match="cannot open nonsense://a"):
        mirror.open_workspace("nonsense://a")

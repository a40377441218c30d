"""Layout: every file below the root, no two in one place, and nothing touched."""

from pathlib import Path

from ichtune.layout import Layout


def paths_of(layout: Layout) -> dict[str, Path]:
    names = [name for name, value in vars(Layout).items() if isinstance(value, property)]
    return {name: getattr(layout, name) for name in names} | {
        "oof": layout.oof("abc"),
        "test": layout.test("abc"),
    }


def test_every_path_is_its_own_and_lies_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "work"
    paths = paths_of(Layout(root))
    assert len(set(paths.values())) == len(paths) > 10
    assert all(path.is_relative_to(root) and path != root for path in paths.values())
    assert not root.exists()


def test_the_names_that_others_script_against() -> None:
    layout = Layout(Path("work"))
    assert layout.slices == Path("work/slices.parquet")
    assert layout.folds == Path("work/folds.parquet")
    assert layout.trials == Path("work/trials.parquet")
    assert layout.submission == Path("work/submission.csv")
    assert layout.ladder == Path("work/ladder.json")
    assert layout.report == Path("work/report.html")
    assert layout.oof("abc") == Path("work/runs/abc/oof.parquet")

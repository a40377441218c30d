"""What the report says, as plain values read from a workspace; what is absent is said, never guessed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ichtune.data.phantom.folder import GENERATED_DATA
from ichtune.report.blend_facts import BlendFacts, LadderRow, collect_blend, collect_ladder
from ichtune.report.data_facts import DataFacts, collect_data
from ichtune.report.provenance import MadeFacts, collect_made
from ichtune.report.run_facts import RunFacts, collect_runs
from ichtune.report.search_facts import SearchFacts, collect_search
from ichtune.workspace import Workspace

T = TypeVar("T")
#: What is said in place of a section, by the command that would fill it.
ABSENT: dict[str, tuple[str, str]] = {
    "ladder": ("no score ladder yet", "blend"),
    "blend": ("no blend yet", "blend"),
    "search": ("no search yet", "search --space windows.yaml"),
    "runs": ("no cross-validated run yet", "train"),
}


@dataclass(frozen=True)
class Facts:
    """Everything that the page shows.

    Attributes:
        work: name of the workspace's folder.
        is_generated: whether the data is a phantom.
        data: counts, labels, folds and pictures.
        ladder: the score ladder, from the label rates to the blend.
        blend: the blend that the ladder is about.
        search: every trial.
        runs: every cross-validated recipe.
        made: versions, ids and commands.
        missing: a sentence for each section that is absent, by its name.
    """

    work: str
    is_generated: bool
    data: DataFacts
    ladder: tuple[LadderRow, ...]
    blend: BlendFacts | None
    search: SearchFacts | None
    runs: RunFacts | None
    made: MadeFacts
    missing: dict[str, str]

    @property
    def data_name(self) -> str:
        """What the figures are on, in a few words."""
        return GENERATED_DATA if self.is_generated else "the prepared data"

    @property
    def blend_row(self) -> LadderRow | None:
        """The ladder's row of the blend."""
        return next((row for row in self.ladder if row.name == "blend"), None)


def collect_facts(workspace: Workspace) -> Facts:
    """Read a workspace.

    Args:
        workspace: prepared; search, runs and blend may be absent.

    Raises:
        DataError: nothing was prepared here, or a file is damaged.
    """
    about = workspace.about
    work = workspace.layout.root.resolve().name
    missing: dict[str, str] = {}

    def section(name: str, collect: Callable[[Workspace], T]) -> T:
        found = collect(workspace)
        if not found:
            what, command = ABSENT[name]
            missing[name] = f"{what}: run `ichtune {command}`"
        return found

    return Facts(
        work=work,
        is_generated=bool(about.get("generated")),
        data=collect_data(workspace),
        ladder=section("ladder", collect_ladder),
        blend=section("blend", collect_blend),
        search=section("search", collect_search),
        runs=section("runs", collect_runs),
        made=collect_made(workspace),
        missing=missing,
    )

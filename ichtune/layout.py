"""Where everything lies in a workspace: the only place that names its files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths of one workspace; nothing here touches the disk."""

    root: Path

    @property
    def workspace_json(self) -> Path:
        """What the workspace was made from: source folder, cache in use, fold plan hash, versions."""
        return self.root / "workspace.json"

    @property
    def slices(self) -> Path:
        """SliceTable: one row a SOP instance."""
        return self.root / "slices.parquet"

    @property
    def folds(self) -> Path:
        """FoldPlan: one row a patient."""
        return self.root / "folds.parquet"

    @property
    def label_issues(self) -> Path:
        """Label rows that contradict each other or name no file."""
        return self.root / "label_issues.parquet"

    @property
    def sample_submission(self) -> Path:
        """The sample submission whose order the final CSV keeps, where one was found."""
        return self.root / "sample_submission.csv"

    @property
    def hu(self) -> Path:
        """Folder of HU caches, one sub-folder a cache_id."""
        return self.root / "hu"

    @property
    def searches(self) -> Path:
        """Folder of searches, one sub-folder a search."""
        return self.root / "searches"

    @property
    def trials(self) -> Path:
        """Trials of every search."""
        return self.root / "trials.parquet"

    @property
    def runs(self) -> Path:
        """Folder of cross-validated runs, one sub-folder a recipe_id."""
        return self.root / "runs"

    @property
    def blends(self) -> Path:
        """Folder of blends, one sub-folder a blend_id."""
        return self.root / "blends"

    @property
    def inspect(self) -> Path:
        """Folder of pictures of the prepared data."""
        return self.root / "inspect"

    @property
    def new(self) -> Path:
        """Folder of new DICOM folders that were predicted, each a workspace of its own."""
        return self.root / "new"

    @property
    def submission(self) -> Path:
        """The final predictions in the competition's form."""
        return self.root / "submission.csv"

    @property
    def ladder(self) -> Path:
        """The score ladder of the last blend."""
        return self.root / "ladder.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"

    def oof(self, recipe_id: str) -> Path:
        """Out-of-fold predictions of one recipe."""
        return self.runs / recipe_id / "oof.parquet"

    def test(self, recipe_id: str) -> Path:
        """Predictions of each fold's model on the unlabelled slices."""
        return self.runs / recipe_id / "test.parquet"

"""What must not stand on a page that is passed on: UIDs and patient_ids."""

import re
from dataclasses import dataclass

from ichtune.workspace import Workspace

HIDDEN = "[hidden]"
_UID = re.compile(r"\b[0-2](?:\.\d+){4,}\b")
_WORD = re.compile(r"[^\s'\"`,;:()/\\]+")
_COLUMNS = ("patient_id", "dicom_study_uid", "series_instance_uid", "sop_instance_uid")


@dataclass(frozen=True)
class Identities:
    """What must not stand on the page: UIDs and patient_ids, but for the image_ids that are shown."""

    private: frozenset[str]
    shown: frozenset[str]

    def hide(self, text: str) -> str:
        """Blank out every identity in a text."""
        text = _UID.sub(lambda m: m[0] if m[0] in self.shown else HIDDEN, text)
        return _WORD.sub(lambda m: HIDDEN if m[0] in self.private else m[0], text)


def identities_of(workspace: Workspace) -> Identities:
    """Collect the identities of a workspace's slices."""
    slices = workspace.slices
    shown = frozenset(slices["image_id"].tolist())
    private = {str(value) for column in _COLUMNS for value in slices[column].unique().tolist() if value}
    return Identities(frozenset(private - shown), shown)

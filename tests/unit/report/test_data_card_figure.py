from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ichtune.report.data_card import SPREAD_COLUMNS, collect_card
from ichtune.report.data_card_figure import (
    MAX_ENTRIES,
    SPREAD_NAMES,
    WIDTH_PX,
    bytes_in_words,
    cache_size,
    in_words,
    write_data_card,
)

pytestmark = pytest.mark.slow  # whole workspaces are searched, trained, blended or drawn


@pytest.fixture(scope="module")
def card(session_workspace):
    return collect_card(session_workspace)


def drawn(card, tmp_path, name="work") -> np.ndarray:
    return np.asarray(Image.open(write_data_card(card, tmp_path / "card.png", name)).convert("L"))


@pytest.fixture(scope="module")
def whole(card, tmp_path_factory) -> np.ndarray:
    """The card with everything on it."""
    return drawn(card, tmp_path_factory.mktemp("whole"))


def test_generated_data_is_called_so(card, whole, tmp_path):
    said, plain = whole, drawn(replace(card, is_generated=False), tmp_path)
    assert said.shape == plain.shape
    assert said.shape[1] == WIDTH_PX
    differs = np.argwhere(said != plain)
    assert differs[:, 1].min() > WIDTH_PX // 2, "it stands in the corner, and nothing else changes"
    assert differs[:, 0].max() < 100


def test_without_labels_and_folds_the_page_is_shorter_and_has_no_empty_axes(card, whole, tmp_path):
    bare = replace(card, labels={}, folds=[], refused=[], label_issues=[], caches=[])
    assert drawn(bare, tmp_path).shape[0] < whole.shape[0] - 200


def test_unknown_geometry_is_said(card, whole, tmp_path):
    nowhere = replace(card.spreads["tilt_deg"], n_known=0)
    shown = drawn(replace(card, spreads={**card.spreads, "tilt_deg": nowhere}), tmp_path)
    assert (shown != whole).any()


def test_long_lists_are_cut_to_a_page_and_say_so(card, tmp_path):
    def with_refused(n: int) -> np.ndarray:
        rows = [{"reason": f"unsupported_transfer_syntax{n}", "files": 10**6, "example": "a/" * 90} for n in range(n)]
        return drawn(replace(card, refused=rows), tmp_path)

    many, most = with_refused(900), with_refused(MAX_ENTRIES + 1)
    assert many.shape == most.shape
    assert (many != most).any(), "the number in the heading differs"


def test_every_distribution_has_a_name():
    assert list(SPREAD_NAMES) == list(SPREAD_COLUMNS)


def test_sizes_and_keys_in_words():
    assert [cache_size({"size_px": size}) for size in (256, None)] == ["256 px", "native"]
    assert bytes_in_words({"bytes_per_slice": 16_900.0}) == "16.9 kB a slice"
    assert bytes_in_words({"bytes_per_slice": None}) == "size unknown"
    assert in_words("usable_slices") == "usable slices"

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest

from catalog.index.attributes import CACHED_MASKS, AttributeColumns
from catalog.index.filters import Filters
from catalog.models.repository.attributes import Attributes

BASIC = Attributes(1, 1, "ann", "base/one", "lora", "mit", ["x"], 10, 1, 1_700_000_000.0, 2, 7)


@pytest.fixture
def columns() -> AttributeColumns:
    """Three models with all attributes, and one for which the Hub has none."""
    columns = AttributeColumns()
    columns.apply([
        BASIC,
        dataclasses.replace(BASIC, seq=2, model_id=2, owner="bob", kind="full", license="apache-2.0", downloads=500,
            team_tags=["prod", "reviewed by legal"]),
        dataclasses.replace(BASIC, seq=3, model_id=4, base="base/two", tags=["x", "y"], updated=2e9, cluster=8),
        Attributes(5, 6, "ann", None, None, None, [], None, None, None, None, None, team_tags=["prod"]),
    ])  # fmt: skip
    return columns


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(bases=("base/one",)), [1, 2]),
        (Filters(bases=("base/one", "base/two")), [1, 2, 4]),
        (Filters(owners=("ann",)), [1, 4, 6]),
        (Filters(not_owners=("ann",)), [2]),
        (Filters(kinds=("full",)), [2]),
        (Filters(licenses=("apache-2.0", "gemma")), [2]),
        (Filters(tags=("x",)), [1, 2, 4]),
        (Filters(tags=("x", "y")), [4]),
        (Filters(team_tags=("prod",)), [2, 6]),
        (Filters(team_tags=("prod", "reviewed by legal")), [2]),
        (Filters(team_tags=("x",)), []),
        (Filters(clusters=(8, 9)), [4]),
        (Filters(min_downloads=11), [2]),
        (Filters(min_downloads=0), [1, 2, 4]),
        (Filters(min_likes=1), [1, 2, 4]),
        (Filters(updated_since=datetime.fromtimestamp(1.75e9, UTC)), [4]),
        (Filters(owners=("ann",), tags=("x",), min_downloads=5, bases=("base/one",)), [1]),
        (Filters(owners=("nobody",)), []),
    ],
)
def test_mask_keeps_models_that_meet_all_filters(columns: AttributeColumns, filters: Filters, expected: list[int]):
    assert np.flatnonzero(columns.mask(filters)).tolist() == expected


def test_unknown_model_ids_do_not_pass(columns: AttributeColumns):
    assert columns.mask(Filters(min_likes=0)).take([7, 100], mode="clip").tolist() == [False, False]


def test_filter_sees_applied_changes_at_once(columns: AttributeColumns):
    filters = Filters(owners=("bob",))
    assert np.flatnonzero(columns.mask(filters)).tolist() == [2]
    columns.apply([dataclasses.replace(BASIC, seq=9, owner="bob"), dataclasses.replace(BASIC, seq=10, model_id=9)])
    assert np.flatnonzero(columns.mask(filters)).tolist() == [1, 2]
    assert columns.seq == 10


def test_last_of_two_changes_of_a_model_counts(columns: AttributeColumns):
    columns.apply([dataclasses.replace(BASIC, seq=7, tags=["a"]), dataclasses.replace(BASIC, seq=8, tags=["b", "b"])])
    assert np.flatnonzero(columns.mask(Filters(tags=("a",)))).tolist() == []
    assert np.flatnonzero(columns.mask(Filters(tags=("b",)))).tolist() == [1]


def test_mask_of_a_repeated_filter_is_cached(columns: AttributeColumns):
    first = columns.mask(Filters(owners=("ann",)))
    assert columns.mask(Filters(owners=("ann",))) is first
    for number in range(CACHED_MASKS):
        columns.mask(Filters(owners=(str(number),)))
    assert columns.mask(Filters(owners=("ann",))) is not first

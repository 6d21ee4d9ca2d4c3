from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest

from catalog.index.attributes import REMEMBERED, AttributeColumns
from catalog.index.filters import Filters
from catalog.models.repository.attributes import Attributes

PLAIN = Attributes(1, 1, "ann", "base/one", "lora", "mit", ["x"], 10, 1, 1_700_000_000.0, 7)


@pytest.fixture
def columns() -> AttributeColumns:
    """Three models of which the Hub told everything, and one of which it told nothing."""
    columns = AttributeColumns()
    columns.apply([
        PLAIN,
        dataclasses.replace(PLAIN, seq=2, model_id=2, owner="bob", kind="full", licence="apache-2.0", downloads=500),
        dataclasses.replace(PLAIN, seq=3, model_id=4, base="base/two", tags=["x", "y"], updated=2e9, cluster=8),
        Attributes(5, 6, "ann", None, None, None, [], None, None, None, None),
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
        (Filters(licences=("apache-2.0", "gemma")), [2]),
        (Filters(tags=("x",)), [1, 2, 4]),
        (Filters(tags=("x", "y")), [4]),
        (Filters(clusters=(8, 9)), [4]),
        (Filters(min_downloads=11), [2]),
        (Filters(min_downloads=0), [1, 2, 4]),
        (Filters(min_likes=1), [1, 2, 4]),
        (Filters(updated_since=datetime.fromtimestamp(1.75e9, UTC)), [4]),
        (Filters(owners=("ann",), tags=("x",), min_downloads=5, bases=("base/one",)), [1]),
        (Filters(owners=("nobody",)), []),
    ],
)
def test_models_pass_that_meet_all_that_is_asked(columns: AttributeColumns, filters: Filters, expected: list[int]):
    assert np.flatnonzero(columns.mask(filters)).tolist() == expected


def test_who_is_not_known_does_not_pass(columns: AttributeColumns):
    assert columns.mask(Filters(min_likes=0)).take([7, 100], mode="clip").tolist() == [False, False]


def test_what_changed_counts_at_once(columns: AttributeColumns):
    wanted = Filters(owners=("bob",))
    assert np.flatnonzero(columns.mask(wanted)).tolist() == [2]
    columns.apply([dataclasses.replace(PLAIN, seq=9, owner="bob"), dataclasses.replace(PLAIN, seq=10, model_id=9)])
    assert np.flatnonzero(columns.mask(wanted)).tolist() == [1, 2]
    assert columns.seq == 10


def test_of_two_changes_of_one_model_the_last_counts(columns: AttributeColumns):
    columns.apply([dataclasses.replace(PLAIN, seq=7, tags=["a"]), dataclasses.replace(PLAIN, seq=8, tags=["b", "b"])])
    assert np.flatnonzero(columns.mask(Filters(tags=("a",)))).tolist() == []
    assert np.flatnonzero(columns.mask(Filters(tags=("b",)))).tolist() == [1]


def test_a_filter_that_comes_again_is_not_worked_out_again(columns: AttributeColumns):
    first = columns.mask(Filters(owners=("ann",)))
    assert columns.mask(Filters(owners=("ann",))) is first
    for number in range(REMEMBERED):
        columns.mask(Filters(owners=(str(number),)))
    assert columns.mask(Filters(owners=("ann",))) is not first

from __future__ import annotations

import numpy as np
import pytest

from catalog.index.row_bitmap import RowBitmap


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000])
def test_bitmap_round_trips_its_mask(n: int):
    mask = np.random.default_rng(n).random(n) < 0.5
    rows = RowBitmap.from_mask(mask)
    assert rows.count == mask.sum()
    assert rows.mask(n).tolist() == mask.tolist()


def test_all_sets_exactly_n_bits():
    assert (RowBitmap.all(13).count, RowBitmap.all(13).mask(13).tolist()) == (13, [True] * 13)


def test_without_clears_rows_in_a_copy():
    all_rows = RowBitmap.all(20)
    rest = all_rows.without(np.array([0, 7, 8, 19, 19]))
    assert np.flatnonzero(~rest.mask(20)).tolist() == [0, 7, 8, 19]
    assert (rest.count, all_rows.count) == (16, 20)


def test_without_no_rows_returns_the_same_bitmap():
    all_rows = RowBitmap.all(20)
    assert all_rows.without(np.empty(0, np.int64)) is all_rows


def test_and_keeps_rows_that_are_in_both():
    both = RowBitmap.from_mask(np.arange(30) % 2 == 0) & RowBitmap.from_mask(np.arange(30) % 3 == 0)
    assert (np.flatnonzero(both.mask(30)).tolist(), both.count) == ([0, 6, 12, 18, 24], 5)


def test_faiss_selector_has_the_same_members():
    rows = RowBitmap.from_mask(np.isin(np.arange(100), [0, 9, 63, 99]))
    selector = rows.selector()
    assert [row for row in range(100) if selector.is_member(row)] == [0, 9, 63, 99]
    assert not selector.is_member(10_000)

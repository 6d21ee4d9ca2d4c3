from __future__ import annotations

import numpy as np
import pytest

from catalog.index.row_bitmap import Rows


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000])
def test_a_choice_gives_its_mask_back(n: int):
    mask = np.random.default_rng(n).random(n) < 0.5
    rows = Rows.where(mask)
    assert rows.count == mask.sum()
    assert rows.mask(n).tolist() == mask.tolist()


def test_all_rows_are_all_and_no_more():
    assert (Rows.all(13).count, Rows.all(13).mask(13).tolist()) == (13, [True] * 13)


def test_rows_are_taken_out_of_a_copy():
    every = Rows.all(20)
    some = every.without(np.array([0, 7, 8, 19, 19]))
    assert np.flatnonzero(~some.mask(20)).tolist() == [0, 7, 8, 19]
    assert (some.count, every.count) == (16, 20)


def test_taking_none_out_copies_nothing():
    every = Rows.all(20)
    assert every.without(np.empty(0, np.int64)) is every


def test_two_choices_have_in_common_what_both_have():
    both = Rows.where(np.arange(30) % 2 == 0) & Rows.where(np.arange(30) % 3 == 0)
    assert (np.flatnonzero(both.mask(30)).tolist(), both.count) == ([0, 6, 12, 18, 24], 5)


def test_faiss_reads_it_the_same_way():
    rows = Rows.where(np.isin(np.arange(100), [0, 9, 63, 99]))
    selector = rows.selector()
    assert [row for row in range(100) if selector.is_member(row)] == [0, 9, 63, 99]
    assert not selector.is_member(10_000)

from __future__ import annotations

import numpy as np

from catalog.index.space_index import Hits, SpaceIndex
from catalog.search.reranking import Limits, Page, pick
from catalog.vectors.repository.feed import Change

COPIES = 120
EAST = np.array([1.0, 0, 0])


def index(*groups: tuple[list[float], int]) -> SpaceIndex:
    """Models 1, 2, ...: of each vector so many near-copies."""
    random, vectors = np.random.default_rng(0), []
    for vector, count in groups:
        vectors += [np.array(vector) + 1e-4 * random.standard_normal(3) for _ in range(count)]
    made = SpaceIndex(3)
    made.apply([Change(n, 1, n, vector.astype(np.float32)) for n, vector in enumerate(vectors, 1)])
    return made


def picked(made: SpaceIndex, page: Page, **limits: object) -> tuple[list, Hits]:
    return pick(made, EAST, page, Limits(**limits))  # type: ignore[arg-type]


def test_a_plain_page_is_what_the_search_found():
    made = index(([1, 0, 0], 3), ([0, 1, 0], 2))
    picks, hits = picked(made, Page(k=4))
    assert [each.model_id for each in picks] == hits.model_ids.tolist()
    assert all(each.duplicates == () for each in picks)


def test_copies_come_as_one_and_make_room_for_others():
    made = index(([1, 0, 0], COPIES), ([1, 0.5, 0], COPIES), ([1, 1, 0], COPIES), ([0, 1, 1], 1))
    picks, _ = picked(made, Page(k=3, group_above=0.999))
    firsts = [(each.model_id - 1) // COPIES for each in picks]
    assert firsts == [0, 1, 2]
    first = picks[0]
    assert len(first.duplicates) == COPIES - 1
    assert {(twin - 1) // COPIES for twin, _ in first.duplicates} == {0}
    assert all(cosine <= first.cosine for _, cosine in first.duplicates)


def test_every_model_is_on_one_line_only():
    made = index(([1, 0, 0], 20), ([1, 0.1, 0], 20), ([1, 0.2, 0], 20))
    picks, _ = picked(made, Page(k=10, group_above=0.99))
    named = [each.model_id for each in picks] + [twin for each in picks for twin, _ in each.duplicates]
    assert len(named) == len(set(named))


def test_a_varied_page_is_not_all_of_one_kind():
    made = index(([1, 0, 0.3], 30), ([1, 0, -0.35], 30), ([1, 0.4, 0], 30))
    plain, _ = picked(made, Page(k=3))
    varied, _ = picked(made, Page(k=3, diversity=0.5))
    assert {(each.model_id - 1) // 30 for each in plain} == {0}
    assert {(each.model_id - 1) // 30 for each in varied} == {0, 1, 2}


def test_both_at_once():
    made = index(([1, 0, 0.3], 30), ([1, 0, 0.32], 30), ([1, 0, -0.5], 30))
    picks, _ = picked(made, Page(k=2, diversity=0.6, group_above=0.99999))
    assert [(each.model_id - 1) // 30 for each in picks] == [0, 2]
    assert len(picks[1].duplicates) == 29


def test_nothing_is_picked_from_nothing():
    for page in (Page(), Page(diversity=0.5), Page(group_above=0.9), Page(diversity=1, group_above=0.9)):
        assert picked(SpaceIndex(3), page)[0] == []


def test_the_least_similarity_holds_for_every_page():
    made = index(([1, 0, 0], 5), ([0, 1, 0], 5))
    for page in (Page(9, 0.5), Page(9, 0.5, diversity=0.9), Page(9, 0.5, group_above=0.99)):
        assert all(each.cosine >= 0.5 for each in picked(made, page)[0])


def test_excluded_models_are_not_even_duplicates():
    picks, _ = picked(index(([1, 0, 0], 5)), Page(group_above=0.9), exclude=[2, 3])
    assert sorted([picks[0].model_id, *(twin for twin, _ in picks[0].duplicates)]) == [1, 4, 5]

from __future__ import annotations

import numpy as np

from catalog.index.space_index import SearchHits, SpaceIndex
from catalog.search.reranking import CandidateFilter, PageOptions, rank
from catalog.vectors.repository.feed import Change

COPIES = 120
EAST = np.array([1.0, 0, 0])


def index(*groups: tuple[list[float], int]) -> SpaceIndex:
    """An index with `count` near-copies of each vector, as models 1, 2, ..."""
    random, vectors = np.random.default_rng(0), []
    for vector, count in groups:
        vectors += [np.array(vector) + 1e-4 * random.standard_normal(3) for _ in range(count)]
    space = SpaceIndex(3)
    space.apply([Change(n, 1, n, vector.astype(np.float32)) for n, vector in enumerate(vectors, 1)])
    return space


def rank_page(space: SpaceIndex, page: PageOptions, **candidates: object) -> tuple[list, SearchHits]:
    return rank(space, EAST, page, CandidateFilter(**candidates))  # type: ignore[arg-type]


def test_plain_page_has_the_hits_in_order():
    space = index(([1, 0, 0], 3), ([0, 1, 0], 2))
    ranked, hits = rank_page(space, PageOptions(k=4))
    assert [model.model_id for model in ranked] == hits.model_ids.tolist()
    assert all(model.duplicates == () for model in ranked)


def test_near_duplicates_are_grouped_and_replaced_by_others():
    space = index(([1, 0, 0], COPIES), ([1, 0.5, 0], COPIES), ([1, 1, 0], COPIES), ([0, 1, 1], 1))
    ranked, _ = rank_page(space, PageOptions(k=3, group_above=0.999))
    groups = [(model.model_id - 1) // COPIES for model in ranked]
    assert groups == [0, 1, 2]
    first = ranked[0]
    assert len(first.duplicates) == COPIES - 1
    assert {(model_id - 1) // COPIES for model_id, _ in first.duplicates} == {0}
    assert all(cosine <= first.cosine for _, cosine in first.duplicates)


def test_every_model_is_in_one_group_only():
    space = index(([1, 0, 0], 20), ([1, 0.1, 0], 20), ([1, 0.2, 0], 20))
    ranked, _ = rank_page(space, PageOptions(k=10, group_above=0.99))
    model_ids = [model.model_id for model in ranked]
    model_ids += [model_id for model in ranked for model_id, _ in model.duplicates]
    assert len(model_ids) == len(set(model_ids))


def test_diverse_page_is_not_all_of_one_group():
    space = index(([1, 0, 0.3], 30), ([1, 0, -0.35], 30), ([1, 0.4, 0], 30))
    plain, _ = rank_page(space, PageOptions(k=3))
    diverse, _ = rank_page(space, PageOptions(k=3, diversity=0.5))
    assert {(model.model_id - 1) // 30 for model in plain} == {0}
    assert {(model.model_id - 1) // 30 for model in diverse} == {0, 1, 2}


def test_diversity_and_grouping_combine():
    space = index(([1, 0, 0.3], 30), ([1, 0, 0.32], 30), ([1, 0, -0.5], 30))
    ranked, _ = rank_page(space, PageOptions(k=2, diversity=0.6, group_above=0.99999))
    assert [(model.model_id - 1) // 30 for model in ranked] == [0, 2]
    assert len(ranked[1].duplicates) == 29


def test_empty_index_has_an_empty_page():
    for page in (
        PageOptions(),
        PageOptions(diversity=0.5),
        PageOptions(group_above=0.9),
        PageOptions(diversity=1, group_above=0.9),
    ):
        assert rank_page(SpaceIndex(3), page)[0] == []


def test_min_similarity_holds_for_every_kind_of_page():
    space = index(([1, 0, 0], 5), ([0, 1, 0], 5))
    for page in (PageOptions(9, 0.5), PageOptions(9, 0.5, diversity=0.9), PageOptions(9, 0.5, group_above=0.99)):
        assert all(model.cosine >= 0.5 for model in rank_page(space, page)[0])


def test_excluded_models_are_not_among_duplicates():
    ranked, _ = rank_page(index(([1, 0, 0], 5)), PageOptions(group_above=0.9), exclude=[2, 3])
    assert sorted([ranked[0].model_id, *(model_id for model_id, _ in ranked[0].duplicates)]) == [1, 4, 5]

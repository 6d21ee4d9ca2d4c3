from __future__ import annotations

import numpy as np
import pytest

from catalog.geometry.transforms import softened, standardized
from catalog.index.space_index import SearchHits, SpaceIndex
from catalog.search import pools
from catalog.search.pools import FULL_POOLS, MAX_POOL
from catalog.search.reranking import CandidateFilter, PageOptions, PerBaseGeometry, rank
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


# the candidates of a search, as asked of the index


class CountingIndex(SpaceIndex):
    """An index that remembers how many models each search asked it for."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self.asked: list[int] = []

    def search(self, vector: np.ndarray, k: int, **options: object) -> SearchHits:
        self.asked.append(k)
        return super().search(vector, k, **options)  # type: ignore[arg-type]


MODELS, DIMENSION = 6_000, 16
LARGEST_PAGE = PageOptions(k=1_000, diversity=1.0, group_above=0.999999)


@pytest.fixture
def counting() -> CountingIndex:
    space = CountingIndex(DIMENSION)
    vectors = np.random.default_rng(0).standard_normal((MODELS, DIMENSION)).astype(np.float32) + 1
    space.fill(np.arange(MODELS), vectors, 1)
    return space


def vector_of(space: SpaceIndex) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(space.dimension) + 1


def unit_vectors(count: int) -> np.ndarray:
    vectors = np.random.default_rng(2).standard_normal((count, DIMENSION)).astype(np.float32) + 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("geometry", [None, softened(unit_vectors(200))], ids=["raw", "softened"])
def test_largest_page_asks_for_no_more_than_the_largest_pool(counting: CountingIndex, geometry):
    ranked, _ = rank(counting, vector_of(counting), LARGEST_PAGE, CandidateFilter(), geometry)
    assert len(ranked) == LARGEST_PAGE.k
    assert max(counting.asked) <= MAX_POOL


def test_pool_is_bounded_by_the_bytes_of_its_vectors(counting: CountingIndex, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pools, "MAX_POOL_BYTES", 4 * DIMENSION * 300)
    ranked, _ = rank(counting, vector_of(counting), LARGEST_PAGE, CandidateFilter(), softened(unit_vectors(200)))
    assert len(ranked) == 300
    assert max(counting.asked) == 300


def test_search_of_a_batch_has_its_share_of_the_candidates(counting: CountingIndex):
    page = PageOptions(k=100, diversity=0.5, group_above=0.999999)
    rank(counting, vector_of(counting), page, CandidateFilter(), softened(unit_vectors(200)), searches=100)
    assert max(counting.asked) <= FULL_POOLS * MAX_POOL // 100


def test_bases_share_the_candidates_of_a_search(counting: CountingIndex, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pools, "MAX_POOL", 1_000)
    bases = [(standardized(unit_vectors(50)), np.arange(MODELS) % 8 == number) for number in range(8)]
    geometry = PerBaseGeometry(bases[0][0], bases)
    ranked, _ = rank(counting, vector_of(counting), PageOptions(k=100), CandidateFilter(), geometry)
    assert len(ranked) == 100
    assert sum(counting.asked) <= 1_000

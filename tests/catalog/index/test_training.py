from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np
import pytest

from benchmarks.pool_like import PoolLike
from catalog.index import training


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return PoolLike(6_000, 48).all()


@pytest.fixture(scope="module")
def trained(vectors: np.ndarray) -> training.TrainedLists:
    return training.train(vectors)


def candidate_rows(trained: training.TrainedLists, queries: np.ndarray, k: int) -> np.ndarray:
    return trained.lists.probe(trained.lists.reduce(queries), trained.lists.candidate_count(k), trained.tuned[0].probes)


def test_candidates_of_unseen_queries_include_the_exact_neighbors(trained: training.TrainedLists, vectors: np.ndarray):
    queries = vectors[::20] + 0.01
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    _, truth = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)
    candidates = candidate_rows(trained, queries, 10)
    recall = np.mean([np.isin(true, near).mean() for near, true in zip(candidates, truth, strict=True)])
    assert recall >= 0.985


def test_probes_are_fewer_than_half_of_the_lists(trained: training.TrainedLists):
    assert 1 <= trained.tuned[0].probes < trained.lists.count / 2


def test_greater_k_probes_more_lists_at_the_same_recall(trained: training.TrainedLists):
    assert [tuned.k for tuned in trained.tuned] == [10, 100, 1000]
    assert [tuned.probes for tuned in trained.tuned] == sorted(tuned.probes for tuned in trained.tuned)
    assert all(tuned.recall >= training.TARGET_RECALL for tuned in trained.tuned)


def test_low_rank_vectors_need_few_axes():
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((3_000, 40)) @ generator.standard_normal((40, 256))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    trained = training.train(vectors)
    assert trained.reaches_target
    assert trained.lists.axes == training.MIN_AXES


def test_full_rank_vectors_keep_all_coordinates():
    vectors = np.random.default_rng(3).standard_normal((3_000, 256)).astype(np.float32)
    trained = training.train(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert trained.lists.axes == 256
    assert all(probes.recall >= 0.95 for probes in trained.tuned)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread, since the rounding of a sum depends on the order in which threads finish."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def test_training_is_deterministic(vectors: np.ndarray, one_thread: None):
    one, two = training.train(vectors[:1_000]), training.train(vectors[:1_000])
    assert one.tuned == two.tuned
    assert (candidate_rows(one, vectors[:50], 10) == candidate_rows(two, vectors[:50], 10)).all()


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_training_works_on_a_handful_of_vectors(vectors: np.ndarray, n: int):
    trained = training.train(vectors[:n])
    [rows] = trained.lists.probe(trained.lists.reduce(vectors[:1]), n, trained.lists.count)
    assert sorted(rows.tolist()) == list(range(n))


def test_training_works_on_copies_of_one_vector():
    trained = training.train(np.tile(np.eye(1, 16, dtype=np.float32), (300, 1)))
    assert trained.lists.shape == (300, 16)


@pytest.mark.parametrize(("n", "lists"), [(2, 1), (100, 12), (10_000, 150), (100_000, 474), (1_000_000, 1500)])
def test_list_count_grows_with_the_square_root_of_n(n: int, lists: int):
    assert training.list_count(n) == lists

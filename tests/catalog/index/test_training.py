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
def built(vectors: np.ndarray) -> training.Built:
    return training.build(vectors)


def near(built: training.Built, queries: np.ndarray, k: int) -> np.ndarray:
    return built.lists.probe(built.lists.reduce(queries), built.lists.candidates(k), built.tuned[0].probes)


def test_candidates_for_queries_that_it_never_saw_hold_what_exact_search_finds(
    built: training.Built, vectors: np.ndarray
):
    queries = vectors[::20] + 0.01
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    _, truth = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)
    found = near(built, queries, 10)
    recall = np.mean([np.isin(wanted, each).mean() for each, wanted in zip(found, truth, strict=True)])
    assert recall >= 0.985


def test_fewer_lists_are_probed_than_there_are(built: training.Built):
    assert 1 <= built.tuned[0].probes < built.lists.count / 2


def test_more_neighbours_take_more_probes_and_keep_the_recall(built: training.Built):
    assert [tuned.k for tuned in built.tuned] == [10, 100, 1000]
    assert [tuned.probes for tuned in built.tuned] == sorted(tuned.probes for tuned in built.tuned)
    assert all(tuned.recall >= training.WANTED_RECALL for tuned in built.tuned)


def test_few_axes_are_enough_where_vectors_have_few_dimensions():
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((3_000, 40)) @ generator.standard_normal((40, 256))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    built = training.build(vectors)
    assert built.good
    assert built.lists.axes == training.FEWEST_AXES


def test_all_coordinates_are_kept_where_no_few_axes_would_do():
    vectors = np.random.default_rng(3).standard_normal((3_000, 256)).astype(np.float32)
    built = training.build(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert built.lists.axes == 256
    assert all(each.recall >= 0.95 for each in built.tuned)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of several threads are rounded in whatever order these end."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def test_the_same_vectors_give_the_same_index(vectors: np.ndarray, one_thread: None):
    one, two = training.build(vectors[:1_000]), training.build(vectors[:1_000])
    assert one.tuned == two.tuned
    assert (near(one, vectors[:50], 10) == near(two, vectors[:50], 10)).all()


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_a_handful_of_vectors_is_enough(vectors: np.ndarray, n: int):
    built = training.build(vectors[:n])
    [found] = built.lists.probe(built.lists.reduce(vectors[:1]), n, built.lists.count)
    assert sorted(found.tolist()) == list(range(n))


def test_copies_of_one_vector_can_be_indexed():
    built = training.build(np.tile(np.eye(1, 16, dtype=np.float32), (300, 1)))
    assert built.lists.shape == (300, 16)


@pytest.mark.parametrize(("n", "lists"), [(2, 1), (100, 12), (10_000, 150), (100_000, 474), (1_000_000, 1500)])
def test_lists_grow_with_the_root_of_the_vectors(n: int, lists: int):
    assert training.list_count(n) == lists

"""Searches in a fitted geometry, against the same maths over all vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from catalog.database import Database
from catalog.errors import GeometryNotFitted
from catalog.geometry import repository as geometries
from catalog.geometry.repository import Place
from catalog.geometry.transforms import LEAST_MODELS, SERVED, fitted
from catalog.index.follower import Follower
from catalog.search import service as search_service
from catalog.search.reranking import Page
from catalog.search.service import Options
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseTable, store_base_table
from catalog.tasks import nearest as task_nearest
from tests.support import catalog as entries
from tests.support.catalog import SPACE

COUNT = LEAST_MODELS + 6
DIMENSION = 8


@pytest.fixture
def vectors() -> np.ndarray:
    """Unit vectors around a direction that all share."""
    found = np.random.default_rng(0).normal(size=(COUNT, DIMENSION)) + 1.5
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def index(database: Database, vectors: np.ndarray) -> Iterator[Follower]:
    for number, vector in enumerate(vectors):
        entries.put(database, f"a/m{number}", 5 * vector)
    made = Follower(database, interval=3600)
    made.catch_up()
    yield made
    made.stop()


def fit(database: Database, vectors: np.ndarray, models: int = COUNT) -> dict[str, int]:
    with database.transaction() as session:
        return {
            kind: geometries.store(session, 1, Place(kind), each, models)
            for kind, each in fitted(vectors, SPACE.feature).items()
        }


def names(answer: search_service.Answer) -> list[str]:
    return [each.model.repo_id for each in answer.neighbours]


def expected(vectors: np.ndarray, kind: str, query: int) -> tuple[list[str], np.ndarray]:
    moved = fitted(vectors, SPACE.feature)[kind].apply(vectors)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    cosines = moved @ moved[query]
    order = [number for number in np.argsort(-cosines) if number != query]
    return [f"a/m{number}" for number in order], cosines[order]


@pytest.mark.parametrize("kind", SERVED)
def test_neighbours_are_those_of_the_geometry(database: Database, vectors: np.ndarray, index: Follower, kind: str):
    numbers = fit(database, vectors)
    index.catch_up()

    answer = search_service.by_model(database, index, "a/m3", Options(geometry=kind))

    order, cosines = expected(vectors, kind, 3)
    assert names(answer) == order[:10]
    assert [each.similarity for each in answer.neighbours] == pytest.approx(cosines[:10], abs=1e-5)
    assert (answer.fitted.kind, answer.fitted.id, answer.exact) == (kind, numbers[kind], True)


def test_raw_stays_available(database: Database, vectors: np.ndarray, index: Follower):
    before = search_service.by_model(database, index, "a/m3", Options(geometry="raw"))
    fit(database, vectors)
    index.catch_up()
    after = search_service.by_model(database, index, "a/m3", Options(geometry="raw"))
    assert names(after) == names(before)
    assert after.fitted is None


def test_the_default_waits_until_it_was_fitted_to_enough_models(
    database: Database, vectors: np.ndarray, index: Follower
):
    assert search_service.by_model(database, index, "a/m3").fitted is None
    fit(database, vectors, models=LEAST_MODELS - 1)
    index.catch_up()
    assert search_service.by_model(database, index, "a/m3").fitted is None
    fit(database, vectors, models=LEAST_MODELS)
    index.catch_up()
    assert search_service.by_model(database, index, "a/m3").fitted is not None


def test_an_index_that_is_loaded_later_knows_the_geometries(database: Database, vectors: np.ndarray):
    fit_to = Follower(database, interval=3600)
    for number, vector in enumerate(vectors):
        entries.put(database, f"a/m{number}", vector)
    fit(database, vectors)
    fit_to.catch_up()
    assert search_service.by_model(database, fit_to, "a/m3").fitted is not None
    fit_to.stop()


def test_one_that_was_not_fitted_is_told(database: Database, index: Follower):
    with pytest.raises(GeometryNotFitted, match="geometry=raw"):
        search_service.by_model(database, index, "a/m3", Options(geometry=next(iter(SERVED))))


def test_a_least_cosine_is_one_of_the_geometry(database: Database, vectors: np.ndarray, index: Follower):
    fit(database, vectors)
    index.catch_up()
    kind = next(iter(SERVED))
    order, cosines = expected(vectors, kind, 3)
    answer = search_service.by_model(database, index, "a/m3", Options(Page(min_similarity=0.2), geometry=kind))
    assert names(answer) == order[: int((cosines >= 0.2).sum())][:10]


def test_noise_is_told_by_raw_cosines(database: Database, vectors: np.ndarray, index: Follower):
    fit(database, vectors)
    index.catch_up()
    with database.transaction() as session:
        table = BaseTable(np.zeros((1, DIMENSION), np.float32), noise_floor=0.01)
        store_base_table(session, SPACE, SPACE.base_repo, SPACE.base_sha, table)
    found = {
        kind: search_service.by_model(database, index, "a/m3", Options(geometry=kind, unconfident=True)).confidence
        for kind in ("raw", *SERVED)
    }
    assert len(set(found.values())) == 1


def test_a_worker_ranks_for_a_task_as_searches_do(database: Database, vectors: np.ndarray, index: Follower):
    query = np.random.default_rng(1).normal(size=DIMENSION).astype(np.float32) + 1.5
    for models in (COUNT, 0):  # a geometry that was fitted to enough, and one that was not
        fit(database, vectors, models)
        index.catch_up()
        with database.transaction() as session:
            space = spaces.get(session, SPACE.key)
            found = task_nearest.nearest(session, {SPACE.feature: space}, {SPACE.feature: query[None]}, 10)
        answer = search_service.by_vector(database, index, query.tolist(), Options(unconfident=True))
        assert (answer.fitted is not None) == (models == COUNT)
        assert [model.repo_id for model, _ in found] == names(answer)
        assert [cosine for _, cosine in found] == pytest.approx(
            [each.similarity for each in answer.neighbours], abs=1e-5
        )
